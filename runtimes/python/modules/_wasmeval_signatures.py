"""Signatures: functions with the parameters of a text like `(query: str, limit: int = 10) -> list`, and no body.

Nothing of the text is ever run: it is parsed, literals become defaults, everything else stays text.
"""

import ast
import re
import types

# What `repr` makes of objects that have no literal: `<object object at 0x...>`.
_OBJECT = re.compile(r"<(?:[^<>'\"]|<[^<>]*>)*>")

_EMPTY = (lambda: None).__code__
_VARIABLE_POSITIONAL, _VARIABLE_NAMED = 0x04, 0x08  # CO_VARARGS, CO_VARKEYWORDS


class Written(str):
    """Source text that stands for what only the host has: a default value, an annotation."""

    __slots__ = ()

    def __repr__(self):
        return str(self)


class Signature:
    """A parsed text. ValueError or SyntaxError when it is not one signature."""

    def __init__(self, text):
        self._objects = []
        try:
            self._definition = self._parse(text)
        except SyntaxError:
            self._definition = self._parse(_OBJECT.sub(self._stand_in, text))
        arguments = self._definition.args
        self._positional = [*arguments.posonlyargs, *arguments.args]
        self._code = self._make_code(arguments)
        self._annotations = self._annotate(arguments)
        self._defaults = tuple([self._default(node) for node in arguments.defaults])
        pairs = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
        self._named_defaults = {each.arg: self._default(node) for each, node in pairs if node is not None}

    def function(self, name, qualified, names, code_name):
        """A new function of these parameters, with `names` as its globals; `code_name` is the name of its code."""
        code = self._code.replace(co_name=code_name, co_qualname=qualified)
        function = types.FunctionType(code, names, name, self._defaults)
        function.__kwdefaults__ = self._named_defaults
        function.__annotations__ = dict(self._annotations)
        return function

    def _parse(self, text):
        self._source = f"def tool{text}: pass"
        module = compile(self._source, "<tool>", "exec", ast.PyCF_ONLY_AST)
        definition = module.body[0]
        if len(module.body) != 1 or not isinstance(definition, ast.FunctionDef) or len(definition.body) != 1:
            raise ValueError("more than a signature")
        return definition

    def _stand_in(self, match):
        self._objects.append(match[0])
        return f"_object_{len(self._objects) - 1}_"

    def _make_code(self, arguments):
        named, flags = arguments.kwonlyargs, _EMPTY.co_flags
        every = [each.arg for each in (*self._positional, *named)]
        for each, flag in ((arguments.vararg, _VARIABLE_POSITIONAL), (arguments.kwarg, _VARIABLE_NAMED)):
            if each is not None:
                every.append(each.arg)
                flags |= flag
        if len(set(every)) < len(every):
            raise ValueError("two parameters have one name")
        return _EMPTY.replace(
            co_argcount=len(self._positional),
            co_posonlyargcount=len(arguments.posonlyargs),
            co_kwonlyargcount=len(named),
            co_nlocals=len(every),
            co_varnames=tuple(every),
            co_flags=flags,
            co_filename="<tool>",
        )

    def _annotate(self, arguments):
        annotations = {}
        for each in (*self._positional, arguments.vararg, *arguments.kwonlyargs, arguments.kwarg):
            if each is not None and each.annotation is not None:
                annotations[each.arg] = self._written(each.annotation)
        if self._definition.returns is not None:
            annotations["return"] = self._written(self._definition.returns)
        return annotations

    def _default(self, node):
        if isinstance(node, ast.Constant):
            return node.value
        try:
            return ast.literal_eval(node)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            return self._written(node)

    def _written(self, node):
        if node.end_lineno == 1 and self._source.isascii():
            text = self._source[node.col_offset : node.end_col_offset]
        else:
            text = ast.get_source_segment(self._source, node)
        for number, name in enumerate(self._objects):
            text = text.replace(f"_object_{number}_", name)
        return Written(text)
