#include "spear/tokenizer/jinja_interpreter.h"

#include <cmath>
#include <limits>
#include <optional>
#include <set>

#include <fmt/format.h>

#include "spear/base/printable.h"
#include "spear/tokenizer/jinja_lexer.h"

namespace spear::jinja {

// Names as a block of the template sees them. Loops and macros open new ones; {% if %} does not.
struct Scope {
  std::unordered_map<std::string, Value> names;
  std::shared_ptr<Scope> outer;
};

struct Macro {
  const Statement* definition = nullptr;
  std::shared_ptr<Scope> scope;  // where it was defined
};

namespace {

constexpr int kMaxMacroDepth = 32;

enum class Flow { kNormal, kBreak, kContinue };

class Interpreter {
 public:
  Interpreter(const std::tm& now, std::shared_ptr<Scope> globals)
      : now_(now), scope_(std::move(globals)) {}
  Interpreter(const Interpreter&) = delete;
  Interpreter& operator=(const Interpreter&) = delete;
  // A namespace may have been put into itself: emptied, it lets go of itself.
  ~Interpreter() {
    for (const auto& fields : assigned_) fields->fields = {};
  }

  Flow run(const Body& body) {
    for (const Statement& statement : body)
      if (const Flow flow = run(statement); flow != Flow::kNormal) return flow;
    return Flow::kNormal;
  }

  std::string take() { return std::move(out_); }

 private:
  // --- statements

  Flow run(const Statement& statement) {
    budget_.step();
    switch (statement.kind) {
      case StatementKind::kText:
        print(statement.text);
        break;
      case StatementKind::kPrint:
        print(to_text(evaluate(*statement.expr), Budget::text_limit()));
        break;
      case StatementKind::kIf:
        return run_if(statement);
      case StatementKind::kFor:
        return run_for(statement);
      case StatementKind::kSet:
        assign(statement, evaluate(*statement.expr));
        break;
      case StatementKind::kSetBlock:
        assign(statement, {captured(statement.body)});
        break;
      case StatementKind::kMacro:
        scope_->names[statement.text] = {std::make_shared<const Macro>(Macro{&statement, scope_})};
        break;
      case StatementKind::kBreak:
        return Flow::kBreak;
      case StatementKind::kContinue:
        return Flow::kContinue;
      case StatementKind::kBody:
        return run(statement.body);
    }
    return Flow::kNormal;
  }

  void print(std::string_view text) {
    budget_.append(out_.size(), text.size());
    out_.append(text);
  }

  std::string captured(const Body& body) {
    std::string outer;
    outer.swap(out_);
    run(body);
    outer.swap(out_);
    return outer;
  }

  Flow run_if(const Statement& statement) {
    for (const Branch& branch : statement.branches)
      if (is_true(evaluate(*branch.condition))) return run(branch.body);
    return run(statement.else_body);
  }

  // Leaves the scope as it found it, also when an error passes.
  class Scoped {
   public:
    Scoped(Interpreter& interpreter, std::shared_ptr<Scope> outer) : interpreter_(interpreter) {
      saved_ = interpreter_.scope_;
      interpreter_.scope_ = std::make_shared<Scope>();
      interpreter_.scope_->outer = std::move(outer);
    }
    ~Scoped() { interpreter_.scope_ = std::move(saved_); }
    Scoped(const Scoped&) = delete;
    Scoped& operator=(const Scoped&) = delete;

   private:
    Interpreter& interpreter_;
    std::shared_ptr<Scope> saved_;
  };

  Flow run_for(const Statement& statement) {
    std::vector<Value> items = items_of(evaluate(*statement.expr), statement.line, budget_);
    if (statement.condition) keep_wanted(statement, items);
    if (items.empty()) {
      const Scoped scoped(*this, scope_);
      return run(statement.else_body);
    }
    auto loop = std::make_shared<Loop>();
    loop->items = std::make_shared<const std::vector<Value>>(std::move(items));
    for (; loop->at < loop->items->size(); ++loop->at) {
      const Scoped scoped(*this, scope_);
      scope_->names["loop"] = {loop};
      unpack(statement.targets, (*loop->items)[loop->at], statement.line);
      if (run(statement.body) == Flow::kBreak) break;
    }
    return Flow::kNormal;
  }

  void keep_wanted(const Statement& statement, std::vector<Value>& items) {
    std::vector<Value> kept;
    for (Value& item : items) {
      const Scoped scoped(*this, scope_);
      unpack(statement.targets, item, statement.line);
      if (is_true(evaluate(*statement.condition))) kept.push_back(std::move(item));
    }
    items = std::move(kept);
  }

  void unpack(const std::vector<std::string>& targets, const Value& value, int line) {
    if (targets.size() == 1) {
      scope_->names[targets.front()] = value;
      return;
    }
    const std::vector<Value> parts = items_of(value, line, budget_);
    if (parts.size() != targets.size())
      template_error(line, fmt::format("{} values for {} names", parts.size(), targets.size()));
    for (size_t i = 0; i < parts.size(); ++i) scope_->names[targets[i]] = parts[i];
  }

  void assign(const Statement& statement, Value value) {
    if (!statement.to_field) return unpack(statement.targets, value, statement.line);
    const Value target = look_up(statement.targets[0]);
    const auto* fields = target.get<std::shared_ptr<Namespace>>();
    if (fields == nullptr)
      template_error(statement.line,
                     fmt::format("{} is no namespace", printable(statement.targets[0], 40)));
    assigned_.insert(*fields);
    (*fields)->fields.set(statement.targets[1], std::move(value));
  }

  // --- names

  Value look_up(const std::string& name) const {
    for (const Scope* scope = scope_.get(); scope != nullptr; scope = scope->outer.get())
      if (const auto found = scope->names.find(name); found != scope->names.end())
        return found->second;
    if (is_function(name)) return {Function{name}};
    return {Undefined{name}};
  }

  // --- expressions

  Value evaluate(const Expr& expr) {
    budget_.step();
    switch (expr.kind) {
      case ExprKind::kLiteral:
        if (const std::string* text = expr.literal.text()) budget_.bytes(text->size());
        return expr.literal;
      case ExprKind::kName:
        return look_up(expr.text);
      case ExprKind::kAttribute:
        return attribute_of(evaluate(*expr.args[0]), expr.text, expr.line);
      case ExprKind::kItem:
        return evaluate_item(expr);
      case ExprKind::kSlice:
        return evaluate_slice(expr);
      case ExprKind::kCall:
        return call(expr);
      case ExprKind::kFilter: {
        const Value value = evaluate(*expr.args[0]);
        return apply_filter(expr.text, value, arguments(expr, "the filter " + expr.text), budget_);
      }
      case ExprKind::kTest: {
        const Value value = evaluate(*expr.args[0]);
        return {apply_test(expr.text, value, arguments(expr, "the test " + expr.text))};
      }
      case ExprKind::kList:
        return make_list(evaluate_all(expr));
      case ExprKind::kTuple:
        return make_list(evaluate_all(expr), true);
      case ExprKind::kDict:
        return evaluate_dict(expr);
      case ExprKind::kNot:
        return {!is_true(evaluate(*expr.args[0]))};
      case ExprKind::kNegative:
        return negative(expr);
      case ExprKind::kAnd: {
        Value left = evaluate(*expr.args[0]);
        return is_true(left) ? evaluate(*expr.args[1]) : left;
      }
      case ExprKind::kOr: {
        Value left = evaluate(*expr.args[0]);
        return is_true(left) ? left : evaluate(*expr.args[1]);
      }
      case ExprKind::kIf:
        if (is_true(evaluate(*expr.args[0]))) return evaluate(*expr.args[1]);
        return expr.args[2] ? evaluate(*expr.args[2])
                            : Value{Undefined{"the value of an if without else"}};
      case ExprKind::kBinary:
        return binary(expr, evaluate(*expr.args[0]), evaluate(*expr.args[1]));
      case ExprKind::kCompare:
        return compare(expr);
    }
    return {};
  }

  std::vector<Value> evaluate_all(const Expr& expr) {
    std::vector<Value> values;
    for (const ExprPtr& arg : expr.args) values.push_back(evaluate(*arg));
    return values;
  }

  Value evaluate_item(const Expr& expr) {
    const Value value = evaluate(*expr.args[0]);
    return item_of(value, evaluate(*expr.args[1]), expr.line, budget_);
  }

  Value evaluate_slice(const Expr& expr) {
    const Value value = evaluate(*expr.args[0]);
    std::optional<Value> bounds[3];
    for (size_t i = 0; i < 3; ++i)
      if (expr.args[i + 1]) bounds[i] = evaluate(*expr.args[i + 1]);
    const auto pointer = [&](size_t i) { return bounds[i] ? &*bounds[i] : nullptr; };
    return slice_of(value, pointer(0), pointer(1), pointer(2), expr.line, budget_);
  }

  Value evaluate_dict(const Expr& expr) {
    Dict dict;
    for (size_t i = 0; i + 1 < expr.args.size(); i += 2) {
      const Value key = evaluate(*expr.args[i]);
      if (key.text() == nullptr)
        template_unsupported(expr.line, fmt::format("a {} as a key", type_name(key)));
      dict.set(*key.text(), evaluate(*expr.args[i + 1]));
    }
    return make_dict(std::move(dict));
  }

  Arguments arguments(const Expr& expr, std::string callee) {
    Arguments out;
    out.callee = std::move(callee);
    out.line = expr.line;
    for (size_t i = 1; i < expr.args.size(); ++i) out.positional.push_back(evaluate(*expr.args[i]));
    for (const auto& [key, arg] : expr.named) out.named.emplace_back(key, evaluate(*arg));
    return out;
  }

  Value call(const Expr& expr) {
    const Expr& callee = *expr.args[0];
    if (callee.kind == ExprKind::kAttribute) {
      const Value self = evaluate(*callee.args[0]);
      const Value found = self.text() != nullptr || self.list() != nullptr || self.dict() != nullptr
                              ? Value{Undefined{}}
                              : attribute_of(self, callee.text, callee.line);
      if (found.is_undefined())
        return call_method(self, callee.text, arguments(expr, "the method " + callee.text),
                           budget_);
      return call_value(expr, found, callee.text);
    }
    return call_value(expr, evaluate(callee), callee.text);
  }

  Value call_value(const Expr& expr, const Value& callee, const std::string& name) {
    if (const auto* function = callee.get<Function>())
      return call_function(function->name, arguments(expr, "the function " + function->name), now_,
                           budget_);
    if (const auto* method = callee.get<Method>())
      return call_method(*method->self, method->name, arguments(expr, "the method " + method->name),
                         budget_);
    if (const auto* macro = callee.get<std::shared_ptr<const Macro>>())
      return call_macro(**macro, arguments(expr, "the macro " + name));
    if (callee.is_undefined())
      template_unsupported(expr.line, fmt::format("the function {}", printable(name, 40)));
    template_error(expr.line, fmt::format("a {} is called", type_name(callee)));
  }

  Value call_macro(const Macro& macro, const Arguments& given) {
    const Statement& definition = *macro.definition;
    if (++macro_depth_ > kMaxMacroDepth)
      template_error(given.line,
                     fmt::format("macros call each other more than {} deep", kMaxMacroDepth));
    std::vector<std::string_view> names;
    if (given.positional.size() > definition.parameters.size())
      given.bad(fmt::format("takes at most {} arguments", definition.parameters.size()));
    for (const auto& [key, value] : given.named) {
      bool known = false;
      for (const Parameter& parameter : definition.parameters) known |= parameter.name == key;
      if (!known) given.bad(fmt::format("has no parameter {}", printable(key, 40)));
    }
    const Scoped scoped(*this, macro.scope);
    for (size_t i = 0; i < definition.parameters.size(); ++i) {
      const Parameter& parameter = definition.parameters[i];
      const Value* value = given.find(i, parameter.name);
      if (value != nullptr) {
        scope_->names[parameter.name] = *value;
      } else if (parameter.otherwise) {
        scope_->names[parameter.name] = evaluate(*parameter.otherwise);
      } else {
        scope_->names[parameter.name] = {Undefined{parameter.name}};
      }
    }
    std::string text = captured(definition.body);
    --macro_depth_;
    return {std::move(text)};
  }

  // --- operators

  [[noreturn]] static void no_operator(const Expr& expr, const Value& left, const Value& right) {
    for (const Value* value : {&left, &right})
      if (const auto* undefined = value->get<Undefined>())
        template_error(expr.line, fmt::format("{} is undefined", printable(undefined->name, 60)));
    template_error(expr.line, fmt::format("'{}' between a {} and a {}", expr.text, type_name(left),
                                          type_name(right)));
  }

  Value binary(const Expr& expr, const Value& left, const Value& right) {
    const std::string& op = expr.text;
    if (op == "~")
      return joined(to_text(left, Budget::text_limit()), to_text(right, Budget::text_limit()));
    if (left.get<Markup>() != nullptr || right.get<Markup>() != nullptr)
      template_unsupported(expr.line, fmt::format("the operator {} on what safe returns", op));
    if (op == "+" && left.text() != nullptr && right.text() != nullptr)
      return joined(*left.text(), *right.text());
    if (op == "+" && left.list() != nullptr && right.list() != nullptr)
      return joined(*left.list(), *right.list());
    if (op == "*" && left.text() != nullptr && right.get<int64_t>() != nullptr)
      return repeated(*left.text(), *right.get<int64_t>());
    if (op == "*" && right.text() != nullptr && left.get<int64_t>() != nullptr)
      return repeated(*right.text(), *left.get<int64_t>());
    if (op == "%" && left.text() != nullptr)
      template_unsupported(expr.line, "the operator % on a string");
    if (!left.is_number() || !right.is_number()) no_operator(expr, left, right);
    const bool exact = left.get<double>() == nullptr && right.get<double>() == nullptr;
    if (exact && op != "/" && op != "**")
      return integers(expr, as_integer(left), as_integer(right));
    return reals(expr, as_double(left), as_double(right), exact);
  }

  Value joined(const std::string& left, const std::string& right) {
    budget_.text(left.size() + right.size());
    return {left + right};
  }

  Value joined(const List& left, const List& right) {
    budget_.items(left.items.size() + right.items.size());
    std::vector<Value> items = left.items;
    items.insert(items.end(), right.items.begin(), right.items.end());
    return make_list(std::move(items), left.tuple);
  }

  Value repeated(const std::string& text, int64_t count) {
    if (count <= 0 || text.empty()) return {std::string()};
    const bool huge = count > static_cast<int64_t>(Budget::text_limit());
    budget_.text(huge ? Budget::text_limit() + 1 : text.size() * static_cast<size_t>(count));
    std::string out;
    for (int64_t i = 0; i < count; ++i) out.append(text);
    return {std::move(out)};
  }

  static int64_t as_integer(const Value& value) {
    if (const auto* flag = value.get<bool>()) return *flag ? 1 : 0;
    return *value.get<int64_t>();
  }

  static Value integers(const Expr& expr, int64_t left, int64_t right) {
    int64_t out = 0;
    bool overflow = false;
    if (expr.text == "+") {
      overflow = __builtin_add_overflow(left, right, &out);
    } else if (expr.text == "-") {
      overflow = __builtin_sub_overflow(left, right, &out);
    } else if (expr.text == "*") {
      overflow = __builtin_mul_overflow(left, right, &out);
    } else {
      if (right == 0) template_error(expr.line, "a division by zero");
      overflow = left == std::numeric_limits<int64_t>::min() && right == -1;
      if (!overflow) {  // Python rounds down
        const int64_t rest = left % right;
        const bool adjust = rest != 0 && (rest < 0) != (right < 0);
        out = expr.text == "//" ? left / right - (adjust ? 1 : 0) : rest + (adjust ? right : 0);
      }
    }
    if (overflow) template_error(expr.line, "a number too large");
    return {out};
  }

  static Value reals(const Expr& expr, double left, double right, bool exact) {
    const std::string& op = expr.text;
    if (op == "+") return {left + right};
    if (op == "-") return {left - right};
    if (op == "*") return {left * right};
    if (op == "**") {
      const double power = std::pow(left, right);
      if (exact && right >= 0 && std::fabs(power) < 9007199254740992.0)
        return {static_cast<int64_t>(power)};
      return {power};
    }
    if (right == 0) template_error(expr.line, "a division by zero");
    if (op == "/") return {left / right};
    if (op == "//") return {std::floor(left / right)};
    const double rest = std::fmod(left, right);
    return {rest != 0 && (rest < 0) != (right < 0) ? rest + right : rest};
  }

  Value negative(const Expr& expr) {
    const Value value = evaluate(*expr.args[0]);
    if (const auto* real = value.get<double>()) return {-*real};
    if (!value.is_number())
      template_error(expr.line, fmt::format("'-' before a {}", type_name(value)));
    const int64_t integer = as_integer(value);
    if (integer == std::numeric_limits<int64_t>::min())
      template_error(expr.line, "a number too large");
    return {-integer};
  }

  Value compare(const Expr& expr) {
    Value left = evaluate(*expr.args[0]);
    for (size_t i = 0; i < expr.operators.size(); ++i) {
      Value right = evaluate(*expr.args[i + 1]);
      charge_comparison(left);
      charge_comparison(right);
      if (!holds(expr.operators[i], left, right, expr.line)) return {false};
      left = std::move(right);
    }
    return {true};
  }

  void charge_comparison(const Value& value) {
    if (const std::string* text = value.text()) budget_.bytes(text->size());
    if (const List* list = value.list()) budget_.items(list->items.size());
  }

  static bool holds(const std::string& op, const Value& left, const Value& right, int line) {
    if (op == "==") return equal(left, right);
    if (op == "!=") return !equal(left, right);
    if (op == "in") return contains(right, left, line);
    if (op == "not in") return !contains(right, left, line);
    if (op == "<") return less(left, right);
    if (op == ">") return less(right, left);
    return op == "<=" ? !less(right, left) : !less(left, right);
  }

  const std::tm& now_;
  std::shared_ptr<Scope> scope_;
  std::set<std::shared_ptr<Namespace>>
      assigned_;  // the only values that can come to hold themselves
  std::string out_;
  Budget budget_;
  int macro_depth_ = 0;
};

// Macros hold their scope and stand in it: the names must go for either to.
void forget(const std::shared_ptr<Scope>& globals) {
  globals->names.clear();
}

}  // namespace

std::string render(const Body& body, const Dict& variables, const std::tm& now) {
  auto globals = std::make_shared<Scope>();
  for (const auto& [name, value] : variables.items) globals->names.emplace(name, value);
  auto top = std::make_shared<Scope>();
  top->outer = globals;
  Interpreter interpreter(now, top);
  try {
    interpreter.run(body);
  } catch (...) {
    forget(top);
    throw;
  }
  forget(top);
  return interpreter.take();
}

}  // namespace spear::jinja
