// A parsed chat template. Trees of bounded height, so that walking and destroying them may recurse.
// Immutable after parsing: read from any thread.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "spear/tokenizer/jinja_value.h"

namespace spear::jinja {

enum class ExprKind {
  kLiteral,
  kName,       // text
  kAttribute,  // args[0].text
  kItem,       // args[0][args[1]]
  kSlice,      // args[0][args[1]:args[2]:args[3]], each of the three may be null
  kCall,       // args[0](args[1]…, named…)
  kFilter,     // args[0] | text(args[1]…, named…)
  kTest,       // args[0] is text(args[1]…)
  kList,
  kTuple,
  kDict,  // keys and values in turn
  kNot,
  kNegative,
  kAnd,
  kOr,
  kIf,       // args[1] if args[0] else args[2] (may be null)
  kBinary,   // text: + - * / // % ** ~
  kCompare,  // args[0] op args[1] op args[2] …; the operators stand in `operators`
};

struct Expr;
using ExprPtr = std::unique_ptr<const Expr>;

struct Expr {
  ExprKind kind = ExprKind::kLiteral;
  int line = 0;
  int height = 1;
  std::string text;
  Value literal;
  std::vector<ExprPtr> args;
  std::vector<std::pair<std::string, ExprPtr>> named;
  std::vector<std::string> operators;
};

enum class StatementKind {
  kText,      // text
  kPrint,     // expr
  kIf,        // branches, else body
  kFor,       // targets in expr [if condition]; body, else body
  kSet,       // targets (or name.field) = expr
  kSetBlock,  // targets[0] = what body prints
  kMacro,     // text(parameters) body
  kBreak,
  kContinue,
  kBody,  // body, as {% generation %} and {% filter %}-less groups are
};

struct Statement;
using Body = std::vector<Statement>;

struct Branch {
  ExprPtr condition;
  Body body;
};

struct Parameter {
  std::string name;
  ExprPtr otherwise;  // null: undefined
};

struct Statement {
  StatementKind kind = StatementKind::kText;
  int line = 0;
  std::string text;
  std::vector<std::string> targets;  // {"a", "b"}, or {"ns", "field"} when `to_field`
  bool to_field = false;
  ExprPtr expr;
  ExprPtr condition;
  std::vector<Branch> branches;
  std::vector<Parameter> parameters;
  Body body;
  Body else_body;
};

// Throws Failure: bad syntax, or the name of what spear does not run, with the line.
Body parse_template(std::string_view source);

}  // namespace spear::jinja
