#include <algorithm>
#include <charconv>

#include <fmt/format.h>

#include "spear/base/printable.h"
#include "spear/tokenizer/jinja_ast.h"
#include "spear/tokenizer/jinja_builtins.h"
#include "spear/tokenizer/jinja_lexer.h"

namespace spear::jinja {
namespace {

constexpr int kMaxHeight = 300;
constexpr int kMaxNesting = 64;  // of blocks, brackets and prefix operators

class Parser {
 public:
  explicit Parser(std::string_view source) : tokens_(tokenize_template(source)) {}

  Body run() {
    Body body = statements({});
    if (peek().kind != TokenKind::kEnd)
      template_error(peek().line, fmt::format("{} ends no block", shown(peek())));
    return body;
  }

 private:
  // --- tokens

  const Token& peek(size_t ahead = 0) const {
    return tokens_[std::min(at_ + ahead, tokens_.size() - 1)];
  }
  Token next() { return tokens_[std::min(at_++, tokens_.size() - 1)]; }

  static std::string shown(const Token& token) {
    switch (token.kind) {
      case TokenKind::kEnd:
        return "the end of the template";
      case TokenKind::kBlockEnd:
        return "%}";
      case TokenKind::kVariableEnd:
        return "}}";
      default:
        return printable(token.text, 40);
    }
  }

  [[nodiscard]] bool is_operator(std::string_view text, size_t ahead = 0) const {
    return peek(ahead).kind == TokenKind::kOperator && peek(ahead).text == text;
  }
  [[nodiscard]] bool is_word(std::string_view text, size_t ahead = 0) const {
    return peek(ahead).kind == TokenKind::kName && peek(ahead).text == text;
  }
  bool accept(std::string_view text) {
    if (!is_operator(text)) return false;
    ++at_;
    return true;
  }
  bool accept_word(std::string_view text) {
    if (!is_word(text)) return false;
    ++at_;
    return true;
  }
  void expect(std::string_view text) {
    if (!accept(text))
      template_error(peek().line, fmt::format("{} where '{}' belongs", shown(peek()), text));
  }
  void expect_word(std::string_view text) {
    if (!accept_word(text))
      template_error(peek().line, fmt::format("{} where '{}' belongs", shown(peek()), text));
  }
  void expect(TokenKind kind, std::string_view what) {
    if (peek().kind != kind)
      template_error(peek().line, fmt::format("{} where {} belongs", shown(peek()), what));
    ++at_;
  }
  std::string name() {
    if (peek().kind != TokenKind::kName)
      template_error(peek().line, fmt::format("{} where a name belongs", shown(peek())));
    return next().text;
  }

  // Counts how deeply the parser has called itself.
  class Deeper {
   public:
    explicit Deeper(Parser& parser) : parser_(parser) {
      if (++parser_.depth_ > kMaxNesting)
        template_error(parser_.peek().line,
                       fmt::format("nested deeper than {} levels", kMaxNesting));
    }
    ~Deeper() { --parser_.depth_; }
    Deeper(const Deeper&) = delete;
    Deeper& operator=(const Deeper&) = delete;

   private:
    Parser& parser_;
  };

  // --- statements

  // Up to a block that begins with one of `ends`, which stays unread behind its {%.
  Body statements(std::initializer_list<std::string_view> ends) {
    const Deeper deeper(*this);
    Body body;
    while (peek().kind != TokenKind::kEnd) {
      if (peek().kind == TokenKind::kText) {
        Statement text;
        text.line = peek().line;
        text.text = next().text;
        body.push_back(std::move(text));
      } else if (peek().kind == TokenKind::kVariableBegin) {
        body.push_back(print());
      } else {
        const bool ended = std::any_of(ends.begin(), ends.end(),
                                       [this](std::string_view end) { return is_word(end, 1); });
        if (ended) return body;
        next();
        body.push_back(block());
      }
    }
    if (ends.size() > 0)
      template_error(peek().line,
                     fmt::format("the template ends before its {{% {} %}}", *(ends.end() - 1)));
    return body;
  }

  Statement print() {
    Statement out;
    out.kind = StatementKind::kPrint;
    out.line = next().line;
    out.expr = expression_or_tuple();
    expect(TokenKind::kVariableEnd, "}}");
    return out;
  }

  void end_block() { expect(TokenKind::kBlockEnd, "%}"); }

  // Behind {%.
  Statement block() {
    const int line = peek().line;
    const std::string word = name();
    Statement out;
    if (word == "if") {
      out = if_block();
    } else if (word == "for") {
      out = for_block();
    } else if (word == "set") {
      out = set_block();
    } else if (word == "macro") {
      out = macro_block();
    } else if (word == "generation") {
      end_block();
      out.kind = StatementKind::kBody;
      out.body = statements({"endgeneration"});
      close("endgeneration");
    } else if (word == "break" || word == "continue") {
      if (loops_ == 0) template_error(line, fmt::format("'{}' outside of a loop", word));
      out.kind = word == "break" ? StatementKind::kBreak : StatementKind::kContinue;
      end_block();
    } else if (word.starts_with("end") || word == "else" || word == "elif") {
      template_error(line, fmt::format("'{}' ends no block", word));
    } else {
      template_unsupported(line, fmt::format("the block {}", printable(word, 40)));
    }
    out.line = line;
    return out;
  }

  void close(std::string_view word) {
    expect(TokenKind::kBlockBegin, "{%");
    expect_word(word);
    if (word == "endmacro" && peek().kind == TokenKind::kName) next();  // may repeat the name
    end_block();
  }

  Statement if_block() {
    Statement out;
    out.kind = StatementKind::kIf;
    do {
      Branch branch;
      branch.condition = expression_or_tuple();
      end_block();
      branch.body = statements({"elif", "else", "endif"});
      out.branches.push_back(std::move(branch));
      expect(TokenKind::kBlockBegin, "{%");
    } while (accept_word("elif"));
    if (accept_word("else")) {
      end_block();
      out.else_body = statements({"endif"});
      expect(TokenKind::kBlockBegin, "{%");
    }
    expect_word("endif");
    end_block();
    return out;
  }

  Statement for_block() {
    Statement out;
    out.kind = StatementKind::kFor;
    out.targets = targets();
    expect_word("in");
    out.expr = or_expression();
    if (is_operator(",")) out.expr = tuple(std::move(out.expr));
    if (accept_word("if")) out.condition = expression();
    if (is_word("recursive")) template_unsupported(peek().line, "a recursive loop");
    end_block();
    ++loops_;
    out.body = statements({"else", "endfor"});
    --loops_;
    expect(TokenKind::kBlockBegin, "{%");
    if (accept_word("else")) {
      end_block();
      out.else_body = statements({"endfor"});
      expect(TokenKind::kBlockBegin, "{%");
    }
    expect_word("endfor");
    end_block();
    return out;
  }

  std::vector<std::string> targets() {
    const bool round = accept("(");
    std::vector<std::string> names = {name()};
    while (accept(",") && peek().kind == TokenKind::kName) names.push_back(name());
    if (round) expect(")");
    return names;
  }

  Statement set_block() {
    Statement out;
    out.kind = StatementKind::kSet;
    out.targets = targets();
    if (out.targets.size() == 1 && accept(".")) {
      out.targets.push_back(name());
      out.to_field = true;
    }
    if (accept("=")) {
      out.expr = expression_or_tuple();
      end_block();
      return out;
    }
    if (is_operator("|")) template_unsupported(peek().line, "a filter on a {% set %} block");
    out.kind = StatementKind::kSetBlock;
    end_block();
    out.body = statements({"endset"});
    close("endset");
    return out;
  }

  Statement macro_block() {
    Statement out;
    out.kind = StatementKind::kMacro;
    out.text = name();
    expect("(");
    while (!is_operator(")")) {
      Parameter parameter;
      parameter.name = name();
      if (accept("=")) parameter.otherwise = expression();
      out.parameters.push_back(std::move(parameter));
      if (!accept(",")) break;
    }
    expect(")");
    end_block();
    const int outer = std::exchange(loops_, 0);
    out.body = statements({"endmacro"});
    loops_ = outer;
    close("endmacro");
    return out;
  }

  // --- expressions

  std::unique_ptr<Expr> make(ExprKind kind, int line, std::vector<ExprPtr> args = {},
                             std::string text = {}) {
    auto out = std::make_unique<Expr>();
    out->kind = kind;
    out->line = line;
    out->text = std::move(text);
    out->args = std::move(args);
    measure(*out);
    return out;
  }

  void measure(Expr& expr) const {
    for (const ExprPtr& arg : expr.args)
      if (arg) expr.height = std::max(expr.height, arg->height + 1);
    for (const auto& [key, arg] : expr.named) expr.height = std::max(expr.height, arg->height + 1);
    if (expr.height > kMaxHeight)
      template_error(expr.line, fmt::format("an expression of more than {} levels", kMaxHeight));
  }

  static std::vector<ExprPtr> list_of(ExprPtr a, ExprPtr b = nullptr) {
    std::vector<ExprPtr> list;
    list.push_back(std::move(a));
    if (b) list.push_back(std::move(b));
    return list;
  }

  ExprPtr expression_or_tuple() {
    ExprPtr first = expression();
    return is_operator(",") ? tuple(std::move(first)) : std::move(first);
  }

  ExprPtr tuple(ExprPtr first) {
    const int line = peek().line;
    std::vector<ExprPtr> items = list_of(std::move(first));
    while (accept(",")) {
      const TokenKind kind = peek().kind;
      if (kind == TokenKind::kBlockEnd || kind == TokenKind::kVariableEnd || is_operator(")"))
        break;
      items.push_back(expression());
    }
    return make(ExprKind::kTuple, line, std::move(items));
  }

  ExprPtr expression() {
    const Deeper deeper(*this);
    ExprPtr value = or_expression();
    while (is_word("if")) {
      const int line = next().line;
      std::vector<ExprPtr> args = list_of(or_expression(), std::move(value));
      args.push_back(accept_word("else") ? expression() : nullptr);
      value = make(ExprKind::kIf, line, std::move(args));
    }
    return value;
  }

  ExprPtr or_expression() {
    ExprPtr left = and_expression();
    while (is_word("or")) {
      const int line = next().line;
      ExprPtr right = and_expression();
      left = make(ExprKind::kOr, line, list_of(std::move(left), std::move(right)));
    }
    return left;
  }

  ExprPtr and_expression() {
    ExprPtr left = not_expression();
    while (is_word("and")) {
      const int line = next().line;
      ExprPtr right = not_expression();
      left = make(ExprKind::kAnd, line, list_of(std::move(left), std::move(right)));
    }
    return left;
  }

  ExprPtr not_expression() {
    if (!is_word("not")) return comparison();
    const Deeper deeper(*this);
    const int line = next().line;
    return make(ExprKind::kNot, line, list_of(not_expression()));
  }

  // The comparison operator that comes next, if one does; reads it.
  std::string comparison_operator() {
    for (const std::string_view text : {"==", "!=", "<=", ">=", "<", ">"})
      if (accept(text)) return std::string(text);
    if (accept_word("in")) return "in";
    if (is_word("not") && is_word("in", 1)) {
      at_ += 2;
      return "not in";
    }
    return {};
  }

  ExprPtr comparison() {
    const int line = peek().line;
    ExprPtr first = sum();
    std::string op = comparison_operator();
    if (op.empty()) return first;
    auto out = std::make_unique<Expr>();
    out->kind = ExprKind::kCompare;
    out->line = line;
    out->args = list_of(std::move(first));
    for (; !op.empty(); op = comparison_operator()) {
      out->operators.push_back(op);
      out->args.push_back(sum());
    }
    measure(*out);
    return out;
  }

  // Operators of one level, from left to right.
  template <class Operand>
  ExprPtr binary(std::initializer_list<std::string_view> operators, Operand&& operand) {
    ExprPtr left = operand();
    for (;;) {
      const auto found = std::find_if(operators.begin(), operators.end(),
                                      [this](std::string_view text) { return is_operator(text); });
      if (found == operators.end()) return left;
      const int line = next().line;
      ExprPtr right = operand();
      left = make(ExprKind::kBinary, line, list_of(std::move(left), std::move(right)),
                  std::string(*found));
    }
  }

  ExprPtr sum() {
    return binary({"+", "-"}, [this] { return concatenation(); });
  }
  ExprPtr concatenation() {
    return binary({"~"}, [this] { return product(); });
  }
  ExprPtr product() {
    return binary({"*", "//", "/", "%"}, [this] { return power(); });
  }
  ExprPtr power() {
    return binary({"**"}, [this] { return unary(true); });
  }

  ExprPtr unary(bool with_filters) {
    const int line = peek().line;
    ExprPtr value;
    if (is_operator("-") || is_operator("+")) {
      const Deeper deeper(*this);
      const bool negative = next().text == "-";
      value = unary(false);
      if (negative) value = make(ExprKind::kNegative, line, list_of(std::move(value)));
    } else {
      value = postfix(primary());
    }
    return with_filters ? filters(std::move(value)) : std::move(value);
  }

  ExprPtr literal(Value value) {
    auto out = std::make_unique<Expr>();
    out->line = peek().line;
    out->literal = std::move(value);
    return out;
  }

  ExprPtr primary() {
    const Token token = next();
    switch (token.kind) {
      case TokenKind::kString: {
        std::string text = token.text;
        while (peek().kind == TokenKind::kString) text += next().text;  // neighbours are one
        return literal({std::move(text)});
      }
      case TokenKind::kInteger:
        return number<int64_t>(token);
      case TokenKind::kFloat:
        return number<double>(token);
      case TokenKind::kName:
        return word(token);
      default:
        break;
    }
    if (token.kind == TokenKind::kOperator) {
      const Deeper deeper(*this);
      if (token.text == "(") return parenthesis(token.line);
      if (token.text == "[") return make(ExprKind::kList, token.line, items("]"));
      if (token.text == "{") return dict(token.line);
    }
    template_error(token.line, fmt::format("{} where a value belongs", shown(token)));
  }

  template <class T>
  ExprPtr number(const Token& token) {
    T value{};
    const char* end = token.text.data() + token.text.size();
    if (std::from_chars(token.text.data(), end, value).ec != std::errc())
      template_error(token.line, fmt::format("the number {} is too large", shown(token)));
    return literal({value});
  }

  ExprPtr word(const Token& token) {
    if (token.text == "true" || token.text == "True") return literal({true});
    if (token.text == "false" || token.text == "False") return literal({false});
    if (token.text == "none" || token.text == "None") return literal({nullptr});
    return make(ExprKind::kName, token.line, {}, token.text);
  }

  ExprPtr parenthesis(int line) {
    if (accept(")")) return make(ExprKind::kTuple, line);
    ExprPtr value = expression_or_tuple();
    expect(")");
    return value;
  }

  std::vector<ExprPtr> items(std::string_view end) {
    std::vector<ExprPtr> list;
    while (!is_operator(end)) {
      list.push_back(expression());
      if (!accept(",")) break;
    }
    expect(end);
    return list;
  }

  ExprPtr dict(int line) {
    std::vector<ExprPtr> list;
    while (!is_operator("}")) {
      list.push_back(expression());
      expect(":");
      list.push_back(expression());
      if (!accept(",")) break;
    }
    expect("}");
    return make(ExprKind::kDict, line, std::move(list));
  }

  ExprPtr postfix(ExprPtr value) {
    for (;;) {
      const int line = peek().line;
      if (accept(".")) {
        if (peek().kind == TokenKind::kInteger)
          template_unsupported(line, "a number as an attribute");
        std::string field = name();
        value = make(ExprKind::kAttribute, line, list_of(std::move(value)), std::move(field));
      } else if (accept("[")) {
        value = subscript(std::move(value), line);
      } else if (is_operator("(")) {
        value = call(std::move(value));
      } else {
        return value;
      }
    }
  }

  ExprPtr subscript(ExprPtr value, int line) {
    const Deeper deeper(*this);
    std::vector<ExprPtr> args = list_of(std::move(value));
    bool slice = false;
    for (;;) {
      const bool absent = is_operator(":") || is_operator("]");
      args.push_back(absent ? nullptr : expression());
      if (!accept(":")) break;
      slice = true;
    }
    expect("]");
    if (!slice && args.size() == 2 && args[1]) return make(ExprKind::kItem, line, std::move(args));
    if (!slice || args.size() > 4) template_error(line, "a broken [ ]");
    args.resize(4);
    return make(ExprKind::kSlice, line, std::move(args));
  }

  ExprPtr call(ExprPtr callee) {
    auto out = std::make_unique<Expr>();
    out->kind = ExprKind::kCall;
    out->line = peek().line;
    out->args = list_of(std::move(callee));
    arguments(*out);
    measure(*out);
    return out;
  }

  // ( value, name=value )
  void arguments(Expr& out) {
    const Deeper deeper(*this);
    expect("(");
    while (!is_operator(")")) {
      if (is_operator("*") || is_operator("**"))
        template_unsupported(peek().line, "a starred argument");
      if (peek().kind == TokenKind::kName && is_operator("=", 1)) {
        std::string key = name();
        next();
        out.named.emplace_back(std::move(key), expression());
      } else {
        out.args.push_back(expression());
      }
      if (!accept(",")) break;
    }
    expect(")");
  }

  ExprPtr filters(ExprPtr value) {
    for (;;) {
      if (accept("|")) {
        value = filter(std::move(value));
      } else if (accept_word("is")) {
        value = test(std::move(value));
      } else if (is_operator("(")) {
        value = call(std::move(value));
      } else {
        return value;
      }
    }
  }

  ExprPtr filter(ExprPtr value) {
    auto out = std::make_unique<Expr>();
    out->kind = ExprKind::kFilter;
    out->line = peek().line;
    out->text = name();
    while (accept(".")) out->text += "." + name();
    if (!is_filter(out->text))
      template_unsupported(out->line, fmt::format("the filter {}", printable(out->text, 40)));
    out->args = list_of(std::move(value));
    if (is_operator("(")) arguments(*out);
    measure(*out);
    return out;
  }

  ExprPtr test(ExprPtr value) {
    const int line = peek().line;
    const bool negated = accept_word("not");
    auto out = std::make_unique<Expr>();
    out->kind = ExprKind::kTest;
    out->line = line;
    out->text = name();
    if (!is_test(out->text))
      template_unsupported(line, fmt::format("the test {}", printable(out->text, 40)));
    out->args = list_of(std::move(value));
    if (is_operator("(")) {
      arguments(*out);
    } else if (begins_argument()) {
      out->args.push_back(postfix(primary()));
    }
    measure(*out);
    if (!negated) return out;
    return make(ExprKind::kNot, line, list_of(std::move(out)));
  }

  // A test may take one argument without parentheses.
  [[nodiscard]] bool begins_argument() const {
    switch (peek().kind) {
      case TokenKind::kName:
        return !is_word("else") && !is_word("or") && !is_word("and") && !is_word("is") &&
               !is_word("if") && !is_word("in") && !is_word("not");
      case TokenKind::kString:
      case TokenKind::kInteger:
      case TokenKind::kFloat:
        return true;
      default:
        return is_operator("[") || is_operator("{");
    }
  }

  std::vector<Token> tokens_;
  size_t at_ = 0;
  int depth_ = 0;
  int loops_ = 0;
};

}  // namespace

Body parse_template(std::string_view source) {
  return Parser(source).run();
}

}  // namespace spear::jinja
