"""From what was typed to code that can be run."""

import ast
import codeop
from types import CodeType
from typing import Final, TypeVar

__all__ = ["DISPLAY", "compile_source", "is_complete"]

DISPLAY: Final = "__display__"
"""The name of the function that gets the value of each expression that stands alone."""

Definition = TypeVar("Definition", ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def is_complete(source: str, filename: str) -> bool:
    """Tell whether lines that were typed make a statement, by the rules of Python's own prompt.

    Raises what `compile_source` does, also for more than one statement.
    """
    compiler = codeop.CommandCompiler()
    compiler.compiler.flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    return compiler(source, filename, "single") is not None


def compile_source(source: str, filename: str) -> CodeType:
    """Return the code of statements; it may have ``await`` in it, and then calling it makes a coroutine.

    Raises SyntaxError, ValueError, OverflowError, RecursionError or MemoryError for what is no Python.
    """
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    tree = compile(source, filename, "exec", flags | ast.PyCF_ONLY_AST)
    code: CodeType = compile(ast.fix_missing_locations(_Shown().visit(tree)), filename, "exec", flags)
    return code


class _Shown(ast.NodeTransformer):
    """Has values shown by a function of ours.

    The interpreter would call ``sys.displayhook``, of which a process has one for all sessions.
    """

    def visit_Expr(self, node: ast.Expr) -> ast.Expr:
        """Show the value of an expression that stands alone."""
        call = ast.Call(ast.Name(DISPLAY, ast.Load()), [node.value], [])
        return ast.copy_location(ast.Expr(ast.copy_location(call, node)), node)

    def _left_alone(self, node: Definition) -> Definition:
        return node

    visit_FunctionDef = _left_alone  # noqa: N815 - the name that ast wants
    visit_AsyncFunctionDef = _left_alone  # noqa: N815
    visit_ClassDef = _left_alone  # noqa: N815
