from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Status(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STATUS_UNSPECIFIED: _ClassVar[Status]
    STATUS_OK: _ClassVar[Status]
    STATUS_ERROR: _ClassVar[Status]
    STATUS_FUEL_EXHAUSTED: _ClassVar[Status]
    STATUS_DEADLINE_EXCEEDED: _ClassVar[Status]
    STATUS_MEMORY_EXCEEDED: _ClassVar[Status]
    STATUS_OUTPUT_EXCEEDED: _ClassVar[Status]
    STATUS_CANCELLED: _ClassVar[Status]
    STATUS_CRASHED: _ClassVar[Status]
    STATUS_UNSUPPORTED: _ClassVar[Status]
STATUS_UNSPECIFIED: Status
STATUS_OK: Status
STATUS_ERROR: Status
STATUS_FUEL_EXHAUSTED: Status
STATUS_DEADLINE_EXCEEDED: Status
STATUS_MEMORY_EXCEEDED: Status
STATUS_OUTPUT_EXCEEDED: Status
STATUS_CANCELLED: Status
STATUS_CRASHED: Status
STATUS_UNSUPPORTED: Status

class EvaluateRequest(_message.Message):
    __slots__ = ("code", "language", "inputs", "limits")
    class InputsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: bytes
        def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...
    CODE_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    code: str
    language: str
    inputs: _containers.ScalarMap[str, bytes]
    limits: Limits
    def __init__(self, code: _Optional[str] = ..., language: _Optional[str] = ..., inputs: _Optional[_Mapping[str, bytes]] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ...) -> None: ...

class EvaluateResponse(_message.Message):
    __slots__ = ("result",)
    RESULT_FIELD_NUMBER: _ClassVar[int]
    result: Result
    def __init__(self, result: _Optional[_Union[Result, _Mapping]] = ...) -> None: ...

class EvaluateBatchRequest(_message.Message):
    __slots__ = ("evaluations",)
    EVALUATIONS_FIELD_NUMBER: _ClassVar[int]
    evaluations: _containers.RepeatedCompositeFieldContainer[EvaluateRequest]
    def __init__(self, evaluations: _Optional[_Iterable[_Union[EvaluateRequest, _Mapping]]] = ...) -> None: ...

class EvaluateBatchResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[Result]
    def __init__(self, results: _Optional[_Iterable[_Union[Result, _Mapping]]] = ...) -> None: ...

class ListRuntimesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListRuntimesResponse(_message.Message):
    __slots__ = ("runtimes",)
    RUNTIMES_FIELD_NUMBER: _ClassVar[int]
    runtimes: _containers.RepeatedCompositeFieldContainer[Runtime]
    def __init__(self, runtimes: _Optional[_Iterable[_Union[Runtime, _Mapping]]] = ...) -> None: ...

class Runtime(_message.Message):
    __slots__ = ("name", "version", "interpreter", "languages", "image_sha256", "initial_memory_bytes", "minimum_memory_bytes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    INTERPRETER_FIELD_NUMBER: _ClassVar[int]
    LANGUAGES_FIELD_NUMBER: _ClassVar[int]
    IMAGE_SHA256_FIELD_NUMBER: _ClassVar[int]
    INITIAL_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    MINIMUM_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    interpreter: str
    languages: _containers.RepeatedScalarFieldContainer[str]
    image_sha256: str
    initial_memory_bytes: int
    minimum_memory_bytes: int
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., interpreter: _Optional[str] = ..., languages: _Optional[_Iterable[str]] = ..., image_sha256: _Optional[str] = ..., initial_memory_bytes: _Optional[int] = ..., minimum_memory_bytes: _Optional[int] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("fuel", "deadline_seconds", "memory_bytes", "output_bytes")
    FUEL_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_BYTES_FIELD_NUMBER: _ClassVar[int]
    fuel: int
    deadline_seconds: float
    memory_bytes: int
    output_bytes: int
    def __init__(self, fuel: _Optional[int] = ..., deadline_seconds: _Optional[float] = ..., memory_bytes: _Optional[int] = ..., output_bytes: _Optional[int] = ...) -> None: ...

class Result(_message.Message):
    __slots__ = ("status", "value", "value_is_repr", "stdout", "stderr", "stdout_truncated", "stderr_truncated", "error", "usage", "limits", "tier", "runtime")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    VALUE_IS_REPR_FIELD_NUMBER: _ClassVar[int]
    STDOUT_FIELD_NUMBER: _ClassVar[int]
    STDERR_FIELD_NUMBER: _ClassVar[int]
    STDOUT_TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    STDERR_TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_FIELD_NUMBER: _ClassVar[int]
    status: Status
    value: bytes
    value_is_repr: bool
    stdout: str
    stderr: str
    stdout_truncated: bool
    stderr_truncated: bool
    error: ErrorInfo
    usage: Usage
    limits: Limits
    tier: str
    runtime: str
    def __init__(self, status: _Optional[_Union[Status, str]] = ..., value: _Optional[bytes] = ..., value_is_repr: _Optional[bool] = ..., stdout: _Optional[str] = ..., stderr: _Optional[str] = ..., stdout_truncated: _Optional[bool] = ..., stderr_truncated: _Optional[bool] = ..., error: _Optional[_Union[ErrorInfo, _Mapping]] = ..., usage: _Optional[_Union[Usage, _Mapping]] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., tier: _Optional[str] = ..., runtime: _Optional[str] = ...) -> None: ...

class ErrorInfo(_message.Message):
    __slots__ = ("type", "message", "traceback", "line", "column")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    TRACEBACK_FIELD_NUMBER: _ClassVar[int]
    LINE_FIELD_NUMBER: _ClassVar[int]
    COLUMN_FIELD_NUMBER: _ClassVar[int]
    type: str
    message: str
    traceback: str
    line: int
    column: int
    def __init__(self, type: _Optional[str] = ..., message: _Optional[str] = ..., traceback: _Optional[str] = ..., line: _Optional[int] = ..., column: _Optional[int] = ...) -> None: ...

class Usage(_message.Message):
    __slots__ = ("fuel", "wall_seconds", "peak_memory_bytes")
    FUEL_FIELD_NUMBER: _ClassVar[int]
    WALL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    PEAK_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    fuel: int
    wall_seconds: float
    peak_memory_bytes: int
    def __init__(self, fuel: _Optional[int] = ..., wall_seconds: _Optional[float] = ..., peak_memory_bytes: _Optional[int] = ...) -> None: ...
