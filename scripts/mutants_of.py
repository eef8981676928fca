"""The mutants of a Rust source, and the source with all of them in it: for scripts/mutants.py.

A parser of expressions, as far as the kernel's files need it: it finds where the operands of each operator begin and end. Types,
patterns, generics, attributes, constants, `const fn`, macros but for a few, and what is under `#[cfg(test)]` are passed over.
What it does not understand is an error and never a guess.

A mutant's text is made of the original's, so that nested ones do not multiply: only one is ever active.
"""

import re


class MutationError(Exception):
    pass


# Tokens.

TOKEN = re.compile(
    r"""
    (?P<space>\s+|//[^\n]*|/\*.*?\*/)
  | (?P<text>b?r(?P<hashes>\#*)".*?"(?P=hashes)|b?"(?:\\.|[^"\\])*")
  | (?P<char>b?'(?:\\(?:x[0-9a-fA-F]{2}|u\{[^}]*\}|.)|[^'\\])')
  | (?P<lifetime>'[A-Za-z_]\w*)
  | (?P<number>0[xob][0-9a-fA-F_]+(?:[iu](?:8|16|32|64|128|size))?|\d[\d_]*(?:\.\d[\d_]*)?(?:[eE][+-]?\d[\d_]*)?(?:[iuf](?:8|16|32|64|128|size))?)
  | (?P<name>(?:r\#)?[A-Za-z_]\w*)
  | (?P<mark><<=|>>=|\.\.=|\.\.\.|->|=>|::|&&|\|\||<<|>>|<=|>=|==|!=|\+=|-=|\*=|/=|%=|\^=|&=|\|=|\.\.|[-+*/%^!&|=<>@.,;:\#$?~()\[\]{}])
    """,
    re.VERBOSE | re.DOTALL,
)


class Token:
    __slots__ = ("kind", "text", "begin", "end")

    def __init__(self, kind, text, begin, end):
        self.kind, self.text, self.begin, self.end = kind, text, begin, end


def tokens(source):
    found, at = [], 0
    while at < len(source):
        match = TOKEN.match(source, at)
        if not match:
            raise MutationError(f"line {line_of(source, at)}: no token at {source[at:at + 20]!r}")
        kind, text = match.lastgroup, match.group(0)
        if kind == "hashes":
            kind = "text"
        # `halves.0.1` has no number 0.1 in it.
        if kind == "number" and found and found[-1].text == "." and "." in text:
            text = text.split(".")[0]
        at += len(text)
        if kind != "space":
            found.append(Token(kind, text, at - len(text), at))
    found.append(Token("end", "", len(source), len(source)))
    return found


def line_of(source, at):
    return source.count("\n", 0, at) + 1


# The tree: pieces of the source with what can be changed in them, and pieces inside.

class Node:
    """`kind`: "binary", "assign", "not", "minus", "guard", "body" or "plain"."""
    __slots__ = ("kind", "begin", "end", "children", "operator", "has_let", "is_block", "returns", "function", "cast")

    def __init__(self, kind, begin, end, children, operator=""):
        self.kind, self.begin, self.end = kind, begin, end
        self.children, self.operator = children, operator
        self.has_let, self.is_block, self.returns, self.function, self.cast = False, False, "", "", False


BINARY = {
    "||": 2, "&&": 3, "==": 4, "!=": 4, "<": 4, ">": 4, "<=": 4, ">=": 4, "|": 5, "^": 6, "&": 7, "<<": 8, ">>": 8,
    "+": 9, "-": 9, "*": 10, "/": 10, "%": 10,
}
CAST, UNARY = 11, 12
ASSIGNING = {"=", "+=", "-=", "*=", "/=", "%=", "^=", "&=", "|=", "<<=", ">>="}
ITEMS = {"use", "const", "static", "struct", "enum", "type", "mod", "trait", "impl"}
# Nothing behind `return` or `break`.
NOTHING = {";", "}", ")", "]", ",", "=>"}
CLOSING = {"(": ")", "[": "]", "{": "}"}

# What each operator becomes: those of cargo-mutants.
INSTEAD = {
    "==": ["!="], "!=": ["=="], "<": ["==", ">", "<="], ">": ["==", "<", ">="], "<=": [">"], ">=": ["<"],
    "&&": ["||"], "||": ["&&"], "+": ["-", "*"], "-": ["+", "/"], "*": ["+", "/"], "/": ["%", "*"], "%": ["/", "+"],
    "<<": [">>"], ">>": ["<<"], "&": ["|", "^"], "|": ["&", "^"], "^": ["|", "&"],
    "+=": ["-=", "*="], "-=": ["+=", "/="], "*=": ["+=", "/="], "/=": ["%=", "*="], "%=": ["/=", "+="],
    "<<=": [">>="], ">>=": ["<<="], "&=": ["|=", "^="], "|=": ["&=", "^="], "^=": ["|=", "&="],
}

# Values that stand for a type where a body is replaced.
RETURNS = {
    "": ["()"],
    "bool": ["true", "false"],
    "usize": ["0", "1"], "u8": ["0", "1"], "u32": ["0", "1"], "u64": ["0", "1"], "u128": ["0", "1"],
    "i32": ["0", "1", "-1"], "i64": ["0", "1", "-1"], "i128": ["0", "1", "-1"],
    "f64": ["0.0", "1.0", "-1.0"],
    "Value": ["Value::Null"],
    "(Value,bool)": ["(Value::Null, false)", "(Value::Null, true)"],
    "Vec<u64>": ["vec![]"], "Vec<usize>": ["vec![]"], "Vec<u32>": ["vec![]"],
    "Option<i64>": ["None", "Some(0)"], "Option<u64>": ["None", "Some(0)"], "Option<f64>": ["None", "Some(0.0)"],
}


class Parser:
    def __init__(self, source):
        self.source, self.tokens, self.i = source, tokens(source), 0

    def fail(self, what):
        token = self.tokens[self.i]
        raise MutationError(f"line {line_of(self.source, token.begin)}: {what} at {token.text!r}")

    @property
    def text(self):
        return self.tokens[self.i].text

    @property
    def kind(self):
        return self.tokens[self.i].kind

    def ahead(self, n=1):
        return self.tokens[min(self.i + n, len(self.tokens) - 1)].text

    def begin(self):
        return self.tokens[self.i].begin

    def last_end(self):
        return self.tokens[self.i - 1].end

    def take(self, text):
        if self.text != text:
            self.fail(f"{text!r} is missing")
        self.i += 1

    def skip_group(self):
        """Over a group in brackets, whatever is in it."""
        opening = self.text
        if opening not in CLOSING:
            self.fail("no group")
        waiting = [CLOSING[opening]]
        self.i += 1
        while waiting:
            text = self.text
            if self.kind == "end":
                self.fail("a group does not end")
            if self.kind == "mark" and text in CLOSING:
                waiting.append(CLOSING[text])
            elif self.kind == "mark" and text == waiting[-1]:
                waiting.pop()
            self.i += 1

    def skip_until(self, stops):
        """To the first of `stops` that is in no group."""
        while self.text not in stops or self.kind not in ("mark", "name"):
            if self.kind == "end":
                self.fail(f"none of {sorted(stops)} follows")
            if self.kind == "mark" and self.text in CLOSING:
                self.skip_group()
            else:
                self.i += 1

    def skip_angles(self):
        """Over `<…>`."""
        depth = 0
        while True:
            text = self.text
            if text == "<":
                depth += 1
            elif text == "<<":
                depth += 2
            elif text == ">":
                depth -= 1
            elif text == ">>":
                depth -= 2
            elif text in CLOSING and self.kind == "mark":
                self.skip_group()
                continue
            elif self.kind == "end" or text in (";", ">=", ">>="):
                self.fail("angle brackets do not end")
            self.i += 1
            if depth <= 0:
                return

    def skip_attributes(self):
        """Over attributes; whether one of them says that this is for tests."""
        tests = False
        while self.text == "#":
            self.i += 1
            if self.text == "!":
                self.i += 1
            begin = self.begin()
            self.skip_group()
            tests |= "test" in re.findall(r"\w+", self.source[begin:self.last_end()])
        return tests

    # Items.

    def bodies(self):
        """The bodies of all functions that can be changed."""
        found = []
        self.items(found, "")
        if self.kind != "end":
            self.fail("no item")
        return found

    def items(self, found, within):
        while self.kind != "end" and self.text != "}":
            tests = self.skip_attributes()
            if self.text == "pub":
                self.i += 1
                if self.text == "(":
                    self.skip_group()
            if self.text == "const" and self.ahead() == "fn":
                self.i += 1
                self.function(found, within, False)
            elif self.text == "fn":
                self.function(found, within, not tests)
            elif self.text in ("impl", "trait", "mod"):
                name = self.item_head()
                if self.text == ";":
                    self.i += 1
                elif tests:
                    self.skip_group()
                else:
                    self.take("{")
                    self.items(found, name)
                    self.take("}")
            elif self.text in ITEMS:
                self.skip_item()
            else:
                self.fail("no item")

    def item_head(self):
        """To the `{` or `;` of an `impl`, `trait` or `mod`; what it is of."""
        begin = self.i
        self.skip_until({"{", ";"}) if self.text != "impl" else self.impl_head()
        names = [t.text for t in self.tokens[begin + 1:self.i]]
        if "for" in names:
            names = names[names.index("for") + 1:]
        return next((name for name in names if re.match(r"[A-Z]\w*$", name)), "")

    def impl_head(self):
        self.i += 1
        if self.text == "<":
            self.skip_angles()
        while self.text != "{":
            if self.text == "<":
                self.skip_angles()
            elif self.kind == "end":
                self.fail("an impl has no body")
            elif self.text in ("(", "["):
                self.skip_group()
            else:
                self.i += 1

    def skip_item(self):
        """Over an item without functions: to its `;`, or past its `{…}`."""
        is_value = self.text in ("use", "const", "static", "type")
        while True:
            if self.text == ";":
                self.i += 1
                return
            if self.text == "{":
                self.skip_group()
                if is_value:
                    continue
                return
            if self.kind == "end":
                self.fail("an item does not end")
            if self.text in ("(", "["):
                self.skip_group()
            else:
                self.i += 1

    def function(self, found, within, counts):
        self.take("fn")
        name = self.text
        self.i += 1
        if self.text == "<":
            self.skip_angles()
        self.skip_group()
        returns = ""
        if self.text == "->":
            self.i += 1
            begin = self.i
            while self.text not in ("{", ";", "where"):
                if self.text == "<":
                    self.skip_angles()
                elif self.text in ("(", "["):
                    self.skip_group()
                else:
                    self.i += 1
            returns = "".join(t.text for t in self.tokens[begin:self.i])
        self.skip_until({"{", ";"})
        if self.text == ";":
            self.i += 1
            return
        if not counts:
            self.skip_group()
            return
        body = self.block()
        body.kind, body.returns = "body", returns
        body.function = f"{within}::{name}" if within else name
        found.append(body)

    # Statements.

    def block(self):
        begin = self.begin()
        self.take("{")
        children = []
        while self.text != "}":
            self.skip_attributes()
            if self.text == ";":
                self.i += 1
            elif self.text == "let":
                self.i += 1
                self.skip_until({"=", ";"})
                if self.text == "=":
                    self.i += 1
                    children.append(self.expression())
                    if self.text == "else":
                        self.i += 1
                        children.append(self.block())
                self.take(";")
            elif self.text == "fn":
                inner = []
                self.function(inner, "", True)
                children += inner
            elif self.text in ITEMS and not (self.text == "const" and self.ahead() == "{"):
                self.skip_item()
            else:
                one = self.expression(is_statement=True)
                children.append(one)
                if self.text == ";":
                    self.i += 1
                elif self.text != "}" and not one.is_block:
                    self.fail("a statement does not end")
        self.take("}")
        node = Node("plain", begin, self.last_end(), children)
        node.is_block = True
        return node

    # Expressions.

    def expression(self, least=0, structs=True, is_statement=False):
        """An expression of operators that bind at least as `least`. `structs`: a `{` may be that of a value."""
        begin = self.begin()
        left = self.range_from_nothing(least, structs) if self.text in ("..", "..=") else self.prefix(structs, is_statement)
        if is_statement and left.is_block and self.text not in (".", "?"):
            return left
        if is_statement and left.is_block:
            left = self.postfix(left, structs)
        left.is_block = False
        while True:
            text = self.text
            if self.kind not in ("mark", "name"):
                return left
            if text == "as" and least <= CAST:
                self.i += 1
                self.cast_type()
                left = Node("plain", begin, self.last_end(), [left])
                left.cast = True
            elif text in BINARY and self.kind == "mark" and BINARY[text] >= least:
                self.i += 1
                right = self.expression(BINARY[text] + 1, structs)
                node = Node("binary", begin, self.last_end(), [left, right], text)
                node.has_let = text == "&&" and (left.has_let or right.has_let)
                left = node
            elif text in ("..", "..=") and least <= 1:
                self.i += 1
                children = [left]
                if self.begins_expression(structs):
                    children.append(self.expression(2, structs))
                left = Node("plain", begin, self.last_end(), children)
            elif text in ASSIGNING and self.kind == "mark" and least <= 0:
                self.i += 1
                right = self.expression(0, structs)
                left = Node("plain" if text == "=" else "assign", begin, self.last_end(), [left, right], text)
            else:
                return left

    def range_from_nothing(self, least, structs):
        begin = self.begin()
        self.i += 1
        children = [self.expression(2, structs)] if self.begins_expression(structs) else []
        return Node("plain", begin, self.last_end(), children)

    def begins_expression(self, structs):
        if self.text in NOTHING or self.kind == "end":
            return False
        return structs or self.text != "{"

    def cast_type(self):
        """Only plain types are cast to."""
        if self.text in ("*", "&"):
            self.fail("a cast to this is not understood")
        if self.kind != "name":
            self.fail("no type")
        self.i += 1
        while self.text == "::":
            self.i += 1
            if self.kind != "name":
                self.fail("no type")
            self.i += 1

    def prefix(self, structs, is_statement=False):
        begin, text, kind = self.begin(), self.text, self.kind
        if kind == "mark" and text in ("-", "!", "*"):
            self.i += 1
            inner = self.expression(UNARY, structs)
            return Node({"-": "minus", "!": "not", "*": "plain"}[text], begin, self.last_end(), [inner], text)
        if kind == "mark" and text in ("&", "&&"):
            self.i += 1
            if self.text == "mut":
                self.i += 1
            inner = self.expression(UNARY, structs)
            return Node("plain", begin, self.last_end(), [inner], "&")
        if text == "move" or (kind == "mark" and text in ("|", "||")):
            return self.closure(begin, structs)
        if kind == "name" and text in ("return", "break", "continue"):
            self.i += 1
            if text == "break" and self.kind == "lifetime" or text == "continue" and self.kind == "lifetime":
                self.i += 1
            children = []
            if text != "continue" and self.begins_expression(structs):
                children = [self.expression(0, structs)]
            return Node("plain", begin, self.last_end(), children)
        if kind == "name" and text == "let":
            self.i += 1
            self.skip_until({"="})
            self.i += 1
            # Binds closer than `&&`.
            inner = self.expression(4, structs)
            node = Node("plain", begin, self.last_end(), [inner])
            node.has_let = True
            return node
        node = self.operand(structs)
        if node.is_block and is_statement:
            return node
        return self.postfix(node, structs)

    def closure(self, begin, structs):
        if self.text == "move":
            self.i += 1
        if self.text == "||":
            self.i += 1
        else:
            self.take("|")
            self.skip_until({"|"})
            self.take("|")
        if self.text == "->":
            self.i += 1
            self.skip_until({"{"})
            body = self.block()
        else:
            body = self.expression(0, structs)
        return Node("plain", begin, self.last_end(), [body])

    def operand(self, structs):
        begin, text, kind = self.begin(), self.text, self.kind
        if kind in ("number", "text", "char"):
            self.i += 1
            return Node("plain", begin, self.last_end(), [])
        if kind == "lifetime":
            self.i += 1
            self.take(":")
            node = self.operand(structs)
            node.begin = begin
            return node
        if kind == "mark" and text in ("(", "["):
            children = self.list(CLOSING[text])
            return Node("plain", begin, self.last_end(), children)
        if kind == "mark" and text == "{":
            return self.block()
        if kind == "mark" and text == "<":
            self.skip_angles()
            if self.text != "::":
                self.fail("no path")
            return self.path(begin, structs)
        if kind == "mark" and text == "::":
            return self.path(begin, structs)
        if kind != "name":
            self.fail("no expression")
        if text == "if":
            return self.conditional()
        if text == "match":
            return self.match()
        if text in ("while", "for", "loop", "unsafe"):
            self.i += 1
            children = []
            if text == "for":
                self.skip_until({"in"})
                self.i += 1
            if text in ("while", "for"):
                children.append(self.expression(0, structs=False))
            children.append(self.block())
            node = Node("plain", begin, self.last_end(), children)
            node.is_block = True
            return node
        if text in ("async", "await", "yield", "box"):
            self.fail("not understood")
        return self.path(begin, structs)

    def list(self, closing):
        """Expressions in brackets, with `,` or `;` between."""
        self.i += 1
        children = []
        while self.text != closing:
            self.skip_attributes()
            children.append(self.expression())
            if self.text in (",", ";"):
                self.i += 1
            elif self.text != closing:
                self.fail(f"{closing!r} is missing")
        self.i += 1
        return children

    def path(self, begin, structs):
        last = ""
        while True:
            if self.text == "::":
                self.i += 1
                if self.text == "<":
                    self.skip_angles()
                    if self.text != "::":
                        break
                    continue
            if self.kind != "name":
                self.fail("no name")
            last = self.text
            self.i += 1
            if self.text != "::":
                break
        if self.text == "!" and self.kind == "mark" and self.ahead() in CLOSING:
            self.i += 1
            return self.macro(begin, last)
        if self.text == "{" and structs and re.match(r"[A-Z]", last):
            return self.value_of_struct(begin)
        return Node("plain", begin, self.last_end(), [])

    def macro(self, begin, name):
        is_block = self.text == "{"
        if name in ("vec", "assert", "assert_eq", "debug_assert", "debug_assert_eq") and not is_block:
            children = self.list(CLOSING[self.text])
            if name != "vec":
                children = []
        elif name == "matches":
            begin_group = self.i
            self.i += 1
            children = [self.expression()]
            self.i = begin_group
            self.skip_group()
        else:
            children = []
            self.skip_group()
        node = Node("plain", begin, self.last_end(), children)
        node.is_block = is_block
        return node

    def value_of_struct(self, begin):
        self.take("{")
        children = []
        while self.text != "}":
            self.skip_attributes()
            if self.text == "..":
                self.i += 1
                children.append(self.expression())
            else:
                if self.kind not in ("name", "number"):
                    self.fail("no field")
                self.i += 1
                if self.text == ":":
                    self.i += 1
                    children.append(self.expression())
            if self.text == ",":
                self.i += 1
            elif self.text != "}":
                self.fail("a value does not end")
        self.take("}")
        return Node("plain", begin, self.last_end(), children)

    def conditional(self):
        begin = self.begin()
        self.take("if")
        children = [self.expression(0, structs=False), self.block()]
        if self.text == "else":
            self.i += 1
            children.append(self.conditional() if self.text == "if" else self.block())
        node = Node("plain", begin, self.last_end(), children)
        node.is_block = True
        return node

    def match(self):
        begin = self.begin()
        self.take("match")
        children = [self.expression(0, structs=False)]
        self.take("{")
        while self.text != "}":
            self.skip_attributes()
            self.skip_until({"=>", "if"})
            if self.text == "if":
                self.i += 1
                from_ = self.begin()
                inner = self.expression(0, structs=True)
                guard = Node("plain" if inner.has_let else "guard", from_, self.last_end(), [inner])
                children.append(guard)
            self.take("=>")
            arm = self.expression(is_statement=True)
            children.append(arm)
            if self.text == ",":
                self.i += 1
            elif self.text != "}" and not arm.is_block:
                self.fail("an arm does not end")
        self.take("}")
        node = Node("plain", begin, self.last_end(), children)
        node.is_block = True
        return node

    def postfix(self, node, structs):
        begin = node.begin
        while self.kind == "mark":
            children = [node]
            if self.text == "?":
                self.i += 1
            elif self.text == "(" or self.text == "[":
                children += self.list(CLOSING[self.text])
            elif self.text == ".":
                self.i += 1
                if self.kind not in ("name", "number"):
                    self.fail("no field")
                self.i += 1
                if self.text == "::":
                    self.i += 1
                    self.skip_angles()
                if self.text == "(":
                    children += self.list(")")
            else:
                return node
            node = Node("plain", begin, self.last_end(), children)
        return node


# Mutants.

# What cannot be changed by construction: these are no numbers of the machine, and have not all the operators.
NO_NUMBERS = re.compile(r"\.times\(|\.exact\(\)|BigInt|BigUint|\binteger\b|\bmagnitude >>")
COMPARING = {"==", "!=", "<", ">", "<=", ">="}


def texts(source, node):
    """What a node may become: (what is said of it, its text)."""
    own = source[node.begin:node.end]
    if node.kind in ("binary", "assign"):
        if node.has_let:
            return []
        left, right = (source[child.begin:child.end] for child in node.children)
        borrows = any(child.kind == "plain" and child.operator == "&" for child in node.children)
        is_plain = node.operator in COMPARING or node.operator in ("&&", "||")
        if not is_plain and (borrows or NO_NUMBERS.search(own)):
            return []
        return [(f"{node.operator} to {instead}", f"({left}) {instead} ({right})") for instead in INSTEAD[node.operator]]
    if node.kind in ("not", "minus"):
        inner = node.children[0]
        if node.kind == "minus" and NO_NUMBERS.search(own):
            return []
        return [(f"{node.operator} removed", f"({source[inner.begin:inner.end]})")]
    if node.kind == "guard":
        return [("guard is true", "true"), ("guard is false", "false")]
    if node.kind == "body":
        return [(f"returns {value}" if node.returns else "does nothing", f"return {value};") for value in RETURNS.get(node.returns, [])]
    return []


def mutants_of(source):
    """Each as a place and what is done there, in the order of the source."""
    found = []

    def visit(node, function):
        function = node.function or function
        if node.kind == "binary" and node.operator and len(node.children) == 2:
            at = node.children[0].end + re.match(r"[\s)]*", source[node.children[0].end:]).end()
        else:
            at = node.begin
        for variant, (what, _) in enumerate(texts(source, node)):
            line = line_of(source, at)
            begin = source.rfind("\n", 0, at) + 1
            shown = source[begin:(source.find("\n", at) + 1 or len(source) + 1) - 1].strip()
            found.append({"line": line, "column": at - begin + 1, "what": what, "function": function, "source": shown,
                          "begin": node.begin, "end": node.end, "kind": node.kind, "variant": variant})
        for child in node.children:
            visit(child, function)

    for body in Parser(source).bodies():
        visit(body, "")
    found.sort(key=lambda m: (m["line"], m["column"], m["begin"], -m["end"], m["variant"]))
    return found


def rewrite(source, mutants):
    """The source with these mutants in it, each behind its number."""
    numbers = {(m["begin"], m["end"], m["kind"], m["variant"]): m["number"] for m in mutants}

    def render(node):
        pieces, at = [], node.begin
        for child in node.children:
            pieces += [source[at:child.begin], render(child)]
            at = child.end
        own = "".join([*pieces, source[at:node.end]])
        active = [(numbers.get((node.begin, node.end, node.kind, variant)), text)
                  for variant, (_, text) in enumerate(texts(source, node))]
        active = [(number, text) for number, text in active if number is not None]
        if not active:
            return own
        choices = [f"if crate::mutant::is({number}) {{ {text} }}" for number, text in active]
        if node.kind == "body":
            return "{ " + " ".join(choices) + own[1:]
        # A block at the beginning would end a statement.
        own = f"({own})" if re.match(r"\{|(if|match|loop|unsafe)\b", own) else own
        return "(" + " else ".join(choices) + f" else {{ {own} }})"

    pieces, at = [], 0
    for body in Parser(source).bodies():
        pieces += [source[at:body.begin], render(body)]
        at = body.end
    text = "".join([*pieces, source[at:]])
    # What has been written is understood, too.
    Parser(text).bodies()
    return text
