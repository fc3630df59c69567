// Device memory for tests of kernels: copies in, copies out with guards, skips without a GPU.
#pragma once

#include <cstring>
#include <vector>

#include <cuda_runtime_api.h>

#include <gtest/gtest.h>

#include "spear/kernels/gpu/check.h"

namespace spear::test {

class DeviceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    int count = 0;
    if (const cudaError_t code = cudaGetDeviceCount(&count); code != cudaSuccess || count == 0)
      GTEST_SKIP() << "SKIPPED: no CUDA device ("
                   << (code == cudaSuccess ? "none present" : cudaGetErrorString(code)) << ")";
    gpu::check(cudaDeviceGetAttribute(&multiprocessors_, cudaDevAttrMultiProcessorCount, 0));
    gpu::check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
  }
  void TearDown() override {
    for (void* block : blocks_) (void)cudaFree(block);
    if (stream_ != nullptr) (void)cudaStreamDestroy(stream_);
  }
  template <class T>
  T* put(const std::vector<T>& host) {
    T* device = take<T>(host.size());
    gpu::check(cudaMemcpy(device, host.data(), host.size() * sizeof(T), cudaMemcpyHostToDevice));
    return device;
  }
  template <class T>
  T* take(size_t count) {
    void* block = nullptr;
    gpu::check(cudaMalloc(&block, count * sizeof(T) + 16));
    blocks_.push_back(block);
    return static_cast<T*>(block);
  }
  template <class T>
  std::vector<T> get(const T* device, size_t count) {
    std::vector<T> host(count);
    gpu::check(cudaStreamSynchronize(stream_));
    gpu::check(cudaMemcpy(host.data(), device, count * sizeof(T), cudaMemcpyDeviceToHost));
    return host;
  }
  void release() {
    for (void* block : blocks_) (void)cudaFree(block);
    blocks_.clear();
  }

  // Device memory filled with NaN (all ones) between two guards.
  template <class T>
  class Guarded {
   public:
    explicit Guarded(size_t count) : count_(count) {
      gpu::check(cudaMalloc(&block_, bytes()));
      gpu::check(cudaMemset(block_, kGuardByte, bytes()));
      gpu::check(cudaMemset(data(), 0xff, count_ * sizeof(T)));
    }
    Guarded(const Guarded&) = delete;
    Guarded& operator=(const Guarded&) = delete;
    ~Guarded() { (void)cudaFree(block_); }
    [[nodiscard]] T* data() const {
      return reinterpret_cast<T*>(static_cast<unsigned char*>(block_) + kGuard);
    }
    // What the kernels wrote; fails the test where a guard changed.
    std::vector<T> values() const {
      std::vector<unsigned char> host(bytes());
      gpu::check(cudaDeviceSynchronize());
      gpu::check(cudaMemcpy(host.data(), block_, host.size(), cudaMemcpyDeviceToHost));
      for (size_t i = 0; i < kGuard; ++i) {
        EXPECT_EQ(host[i], kGuardByte) << "written " << kGuard - i << " bytes before the buffer";
        EXPECT_EQ(host[host.size() - 1 - i], kGuardByte) << "written after the buffer's end";
      }
      std::vector<T> out(count_);
      std::memcpy(out.data(), host.data() + kGuard, count_ * sizeof(T));
      return out;
    }

   private:
    static constexpr size_t kGuard = 256;
    static constexpr unsigned char kGuardByte = 0xa5;
    [[nodiscard]] size_t bytes() const { return count_ * sizeof(T) + 2 * kGuard; }
    size_t count_;
    void* block_ = nullptr;
  };

  int multiprocessors_ = 0;
  cudaStream_t stream_ = nullptr;

 private:
  std::vector<void*> blocks_;
};

}  // namespace spear::test
