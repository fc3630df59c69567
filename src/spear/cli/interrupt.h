// Ctrl-C and SIGTERM. The first one asks the running work to save and stop; the second ends the
// process at once with 128 + the signal's number. A signal handler can reach only what is static,
// hence the free functions.
#pragma once

namespace spear {

void install_interrupt_handler();
// No notice on Ctrl-C: a chat stops its answer, which is seen at once.
void quiet_interrupts();
bool interrupt_requested();
// Forgets a Ctrl-C that has been dealt with (it ended one answer of a chat, not the chat).
void clear_interrupt();

}  // namespace spear
