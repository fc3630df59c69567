// Turns a hub's refusal into the sentence a user can act on.
#pragma once

#include <string>

#include "spear/base/error.h"
#include "spear/hub/http.h"

namespace spear {

struct HubAddress {
  std::string endpoint;  // "https://hub.example"
  std::string what;      // "org/name" or "org/name: model.safetensors"
  bool with_token = false;
};

Error explain_refusal(const HttpResponse& response, const HubAddress& address);
// 408, 429, 5xx, and connections that broke: trying again may help.
bool may_pass(const HttpResponse& response);

}  // namespace spear
