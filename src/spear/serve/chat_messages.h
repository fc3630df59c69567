// Messages and tools of a chat as its template reads them: roles known, contents joined to text,
// arguments of calls as objects. Pure functions, every thread.
#pragma once

#include <string>
#include <vector>

#include "spear/base/json_fwd.h"
#include "spear/serve/field_reader.h"
#include "spear/serve/serve_limits.h"

namespace spear {

// A list of messages for "messages" of the template.
ApiResult<Json> read_messages(const Json& body, const ServeLimits& limits);

struct ToolFields {
  enum class Choice { kNone, kAuto, kRequired };
  Choice choice = Choice::kNone;
  std::vector<std::string> names;  // that may be called: all, or the one that was named
  bool parallel = true;            // more than one call in an answer
};

// Judges "tools" and "tool_choice". `tools` becomes the list for the template; with kRequired
// `schema` becomes what the answer must be: one call.
ApiResult<ToolFields> read_tools(const Json& body, const ServeLimits& limits, Json& tools,
                                 Json& schema);

}  // namespace spear
