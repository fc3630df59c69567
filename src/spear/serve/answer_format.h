// response_format and structured_outputs: what the text of an answer must be. A format that cannot
// be enforced is refused, never dropped. Pure functions, every thread.
#pragma once

#include <memory>
#include <string>

#include "spear/serve/field_reader.h"
#include "spear/serve/serve_limits.h"

namespace spear {

class Constraint;
class Engine;

// Null: any text.
ApiResult<std::shared_ptr<const Constraint>> read_answer_format(const Json& body,
                                                                const ServeLimits& limits,
                                                                Engine& engine);

// The text of a JSON schema as a constraint; `field` is named in errors.
ApiResult<std::shared_ptr<const Constraint>> schema_constraint(const Json& schema,
                                                               const ServeLimits& limits,
                                                               Engine& engine, const char* field);

}  // namespace spear
