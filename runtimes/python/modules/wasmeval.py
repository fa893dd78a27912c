"""What a snippet may import of its evaluator: the errors of the tools it was given.

A tool that raised a built-in exception raises the same one here; what is below tells all other ways in which a call
fails.
"""

__all__ = ["ToolError", "ToolLimitError"]


class ToolError(RuntimeError):
    """A tool failed, or its answer was lost. `type` names the tool's own exception, or is "gone"."""

    def __init__(self, message="", type=""):
        super().__init__(message)
        self.type = type


class ToolLimitError(ToolError):
    """A limit on calls of tools was reached: the call was not made, or its answer was dropped. `limit` names it."""

    def __init__(self, message="", limit=""):
        super().__init__(message, "limit")
        self.limit = limit
