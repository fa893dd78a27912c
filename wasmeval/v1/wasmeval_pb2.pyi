from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Durability(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DURABILITY_UNSPECIFIED: _ClassVar[Durability]
    DURABILITY_NONE: _ClassVar[Durability]
    DURABILITY_STEP: _ClassVar[Durability]

class Tier(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TIER_UNSPECIFIED: _ClassVar[Tier]
    TIER_AUTO: _ClassVar[Tier]
    TIER_WASM: _ClassVar[Tier]
    TIER_VM: _ClassVar[Tier]

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
DURABILITY_UNSPECIFIED: Durability
DURABILITY_NONE: Durability
DURABILITY_STEP: Durability
TIER_UNSPECIFIED: Tier
TIER_AUTO: Tier
TIER_WASM: Tier
TIER_VM: Tier
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

class CreateSessionRequest(_message.Message):
    __slots__ = ("language", "limits", "total_fuel", "idle_seconds", "life_seconds", "durability", "deterministic", "tier")
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FUEL_FIELD_NUMBER: _ClassVar[int]
    IDLE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    LIFE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    DURABILITY_FIELD_NUMBER: _ClassVar[int]
    DETERMINISTIC_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    language: str
    limits: Limits
    total_fuel: int
    idle_seconds: float
    life_seconds: float
    durability: Durability
    deterministic: Deterministic
    tier: Tier
    def __init__(self, language: _Optional[str] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., total_fuel: _Optional[int] = ..., idle_seconds: _Optional[float] = ..., life_seconds: _Optional[float] = ..., durability: _Optional[_Union[Durability, str]] = ..., deterministic: _Optional[_Union[Deterministic, _Mapping]] = ..., tier: _Optional[_Union[Tier, str]] = ...) -> None: ...

class SessionRequest(_message.Message):
    __slots__ = ("session_id",)
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    def __init__(self, session_id: _Optional[str] = ...) -> None: ...

class StepRequest(_message.Message):
    __slots__ = ("session_id", "evaluation", "refuse_to_wait")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    EVALUATION_FIELD_NUMBER: _ClassVar[int]
    REFUSE_TO_WAIT_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    evaluation: EvaluateRequest
    refuse_to_wait: bool
    def __init__(self, session_id: _Optional[str] = ..., evaluation: _Optional[_Union[EvaluateRequest, _Mapping]] = ..., refuse_to_wait: _Optional[bool] = ...) -> None: ...

class Session(_message.Message):
    __slots__ = ("id", "language", "runtime", "live", "steps", "fuel", "created", "used", "expires", "options")
    ID_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_FIELD_NUMBER: _ClassVar[int]
    LIVE_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    FUEL_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    USED_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    id: str
    language: str
    runtime: str
    live: bool
    steps: int
    fuel: int
    created: float
    used: float
    expires: float
    options: CreateSessionRequest
    def __init__(self, id: _Optional[str] = ..., language: _Optional[str] = ..., runtime: _Optional[str] = ..., live: _Optional[bool] = ..., steps: _Optional[int] = ..., fuel: _Optional[int] = ..., created: _Optional[float] = ..., used: _Optional[float] = ..., expires: _Optional[float] = ..., options: _Optional[_Union[CreateSessionRequest, _Mapping]] = ...) -> None: ...

class CloseSessionResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListSessionsRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListSessionsResponse(_message.Message):
    __slots__ = ("sessions", "next_page_token")
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    sessions: _containers.RepeatedCompositeFieldContainer[Session]
    next_page_token: str
    def __init__(self, sessions: _Optional[_Iterable[_Union[Session, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class Checkpoint(_message.Message):
    __slots__ = ("id", "session_id", "step", "created", "digest")
    ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    id: str
    session_id: str
    step: int
    created: float
    digest: str
    def __init__(self, id: _Optional[str] = ..., session_id: _Optional[str] = ..., step: _Optional[int] = ..., created: _Optional[float] = ..., digest: _Optional[str] = ...) -> None: ...

class ListCheckpointsResponse(_message.Message):
    __slots__ = ("checkpoints",)
    CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    checkpoints: _containers.RepeatedCompositeFieldContainer[Checkpoint]
    def __init__(self, checkpoints: _Optional[_Iterable[_Union[Checkpoint, _Mapping]]] = ...) -> None: ...

class RestoreRequest(_message.Message):
    __slots__ = ("session_id", "checkpoint_id")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_ID_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    checkpoint_id: str
    def __init__(self, session_id: _Optional[str] = ..., checkpoint_id: _Optional[str] = ...) -> None: ...

class EvaluateRequest(_message.Message):
    __slots__ = ("code", "language", "inputs", "limits", "files", "outputs", "mounts", "http", "deterministic", "cache", "tier", "command", "arrays")
    class InputsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: bytes
        def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...
    class FilesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: bytes
        def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...
    class ArraysEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Array
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Array, _Mapping]] = ...) -> None: ...
    CODE_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    MOUNTS_FIELD_NUMBER: _ClassVar[int]
    HTTP_FIELD_NUMBER: _ClassVar[int]
    DETERMINISTIC_FIELD_NUMBER: _ClassVar[int]
    CACHE_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    ARRAYS_FIELD_NUMBER: _ClassVar[int]
    code: str
    language: str
    inputs: _containers.ScalarMap[str, bytes]
    limits: Limits
    files: _containers.ScalarMap[str, bytes]
    outputs: _containers.RepeatedScalarFieldContainer[str]
    mounts: _containers.RepeatedScalarFieldContainer[str]
    http: HttpPolicy
    deterministic: Deterministic
    cache: bool
    tier: Tier
    command: _containers.RepeatedScalarFieldContainer[str]
    arrays: _containers.MessageMap[str, Array]
    def __init__(self, code: _Optional[str] = ..., language: _Optional[str] = ..., inputs: _Optional[_Mapping[str, bytes]] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., files: _Optional[_Mapping[str, bytes]] = ..., outputs: _Optional[_Iterable[str]] = ..., mounts: _Optional[_Iterable[str]] = ..., http: _Optional[_Union[HttpPolicy, _Mapping]] = ..., deterministic: _Optional[_Union[Deterministic, _Mapping]] = ..., cache: _Optional[bool] = ..., tier: _Optional[_Union[Tier, str]] = ..., command: _Optional[_Iterable[str]] = ..., arrays: _Optional[_Mapping[str, Array]] = ...) -> None: ...

class Array(_message.Message):
    __slots__ = ("dtype", "shape", "data")
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    dtype: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    data: bytes
    def __init__(self, dtype: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., data: _Optional[bytes] = ...) -> None: ...

class Deterministic(_message.Message):
    __slots__ = ("seed", "start_time", "transcript", "seal")
    SEED_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    TRANSCRIPT_FIELD_NUMBER: _ClassVar[int]
    SEAL_FIELD_NUMBER: _ClassVar[int]
    seed: int
    start_time: float
    transcript: bytes
    seal: str
    def __init__(self, seed: _Optional[int] = ..., start_time: _Optional[float] = ..., transcript: _Optional[bytes] = ..., seal: _Optional[str] = ...) -> None: ...

class HttpPolicy(_message.Message):
    __slots__ = ("rules", "requests", "request_bytes", "response_bytes", "seconds", "redirects")
    RULES_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_BYTES_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_BYTES_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    REDIRECTS_FIELD_NUMBER: _ClassVar[int]
    rules: _containers.RepeatedCompositeFieldContainer[HttpRule]
    requests: int
    request_bytes: int
    response_bytes: int
    seconds: float
    redirects: int
    def __init__(self, rules: _Optional[_Iterable[_Union[HttpRule, _Mapping]]] = ..., requests: _Optional[int] = ..., request_bytes: _Optional[int] = ..., response_bytes: _Optional[int] = ..., seconds: _Optional[float] = ..., redirects: _Optional[int] = ...) -> None: ...

class HttpRule(_message.Message):
    __slots__ = ("host", "methods", "path_prefix", "schemes", "credential")
    HOST_FIELD_NUMBER: _ClassVar[int]
    METHODS_FIELD_NUMBER: _ClassVar[int]
    PATH_PREFIX_FIELD_NUMBER: _ClassVar[int]
    SCHEMES_FIELD_NUMBER: _ClassVar[int]
    CREDENTIAL_FIELD_NUMBER: _ClassVar[int]
    host: str
    methods: _containers.RepeatedScalarFieldContainer[str]
    path_prefix: str
    schemes: _containers.RepeatedScalarFieldContainer[str]
    credential: str
    def __init__(self, host: _Optional[str] = ..., methods: _Optional[_Iterable[str]] = ..., path_prefix: _Optional[str] = ..., schemes: _Optional[_Iterable[str]] = ..., credential: _Optional[str] = ...) -> None: ...

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

class ConverseRequest(_message.Message):
    __slots__ = ("start", "file", "tool_result", "input", "cancel")
    START_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    TOOL_RESULT_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    start: Start
    file: FilePiece
    tool_result: ToolResult
    input: Input
    cancel: Cancel
    def __init__(self, start: _Optional[_Union[Start, _Mapping]] = ..., file: _Optional[_Union[FilePiece, _Mapping]] = ..., tool_result: _Optional[_Union[ToolResult, _Mapping]] = ..., input: _Optional[_Union[Input, _Mapping]] = ..., cancel: _Optional[_Union[Cancel, _Mapping]] = ...) -> None: ...

class Start(_message.Message):
    __slots__ = ("evaluation", "tools", "live_output", "input", "files", "tool_time_counts", "session_id", "refuse_to_wait")
    EVALUATION_FIELD_NUMBER: _ClassVar[int]
    TOOLS_FIELD_NUMBER: _ClassVar[int]
    LIVE_OUTPUT_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    TOOL_TIME_COUNTS_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    REFUSE_TO_WAIT_FIELD_NUMBER: _ClassVar[int]
    evaluation: EvaluateRequest
    tools: _containers.RepeatedCompositeFieldContainer[Tool]
    live_output: bool
    input: bool
    files: int
    tool_time_counts: bool
    session_id: str
    refuse_to_wait: bool
    def __init__(self, evaluation: _Optional[_Union[EvaluateRequest, _Mapping]] = ..., tools: _Optional[_Iterable[_Union[Tool, _Mapping]]] = ..., live_output: _Optional[bool] = ..., input: _Optional[bool] = ..., files: _Optional[int] = ..., tool_time_counts: _Optional[bool] = ..., session_id: _Optional[str] = ..., refuse_to_wait: _Optional[bool] = ...) -> None: ...

class Tool(_message.Message):
    __slots__ = ("name", "signature", "parameters", "doc")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    DOC_FIELD_NUMBER: _ClassVar[int]
    name: str
    signature: str
    parameters: _containers.RepeatedScalarFieldContainer[str]
    doc: str
    def __init__(self, name: _Optional[str] = ..., signature: _Optional[str] = ..., parameters: _Optional[_Iterable[str]] = ..., doc: _Optional[str] = ...) -> None: ...

class FilePiece(_message.Message):
    __slots__ = ("path", "data", "last")
    PATH_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    path: str
    data: bytes
    last: bool
    def __init__(self, path: _Optional[str] = ..., data: _Optional[bytes] = ..., last: _Optional[bool] = ...) -> None: ...

class ToolResult(_message.Message):
    __slots__ = ("call_id", "value", "error")
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    call_id: int
    value: bytes
    error: ToolError
    def __init__(self, call_id: _Optional[int] = ..., value: _Optional[bytes] = ..., error: _Optional[_Union[ToolError, _Mapping]] = ...) -> None: ...

class ToolError(_message.Message):
    __slots__ = ("type", "message")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    type: str
    message: str
    def __init__(self, type: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class Input(_message.Message):
    __slots__ = ("data", "last")
    DATA_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    last: bool
    def __init__(self, data: _Optional[bytes] = ..., last: _Optional[bool] = ...) -> None: ...

class Cancel(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ConverseResponse(_message.Message):
    __slots__ = ("output", "tool_call", "tool_call_cancelled", "file", "result", "input_wanted")
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    TOOL_CALL_FIELD_NUMBER: _ClassVar[int]
    TOOL_CALL_CANCELLED_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    INPUT_WANTED_FIELD_NUMBER: _ClassVar[int]
    output: Output
    tool_call: ToolCall
    tool_call_cancelled: ToolCallCancelled
    file: FilePiece
    result: Result
    input_wanted: InputWanted
    def __init__(self, output: _Optional[_Union[Output, _Mapping]] = ..., tool_call: _Optional[_Union[ToolCall, _Mapping]] = ..., tool_call_cancelled: _Optional[_Union[ToolCallCancelled, _Mapping]] = ..., file: _Optional[_Union[FilePiece, _Mapping]] = ..., result: _Optional[_Union[Result, _Mapping]] = ..., input_wanted: _Optional[_Union[InputWanted, _Mapping]] = ...) -> None: ...

class InputWanted(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Output(_message.Message):
    __slots__ = ("stream", "data")
    STREAM_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    stream: int
    data: bytes
    def __init__(self, stream: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class ToolCall(_message.Message):
    __slots__ = ("call_id", "name", "arguments")
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    call_id: int
    name: str
    arguments: bytes
    def __init__(self, call_id: _Optional[int] = ..., name: _Optional[str] = ..., arguments: _Optional[bytes] = ...) -> None: ...

class ToolCallCancelled(_message.Message):
    __slots__ = ("call_id",)
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    call_id: int
    def __init__(self, call_id: _Optional[int] = ...) -> None: ...

class ListRuntimesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListRuntimesResponse(_message.Message):
    __slots__ = ("runtimes",)
    RUNTIMES_FIELD_NUMBER: _ClassVar[int]
    runtimes: _containers.RepeatedCompositeFieldContainer[Runtime]
    def __init__(self, runtimes: _Optional[_Iterable[_Union[Runtime, _Mapping]]] = ...) -> None: ...

class Runtime(_message.Message):
    __slots__ = ("name", "version", "interpreter", "languages", "image_sha256", "initial_memory_bytes", "minimum_memory_bytes", "tier")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    INTERPRETER_FIELD_NUMBER: _ClassVar[int]
    LANGUAGES_FIELD_NUMBER: _ClassVar[int]
    IMAGE_SHA256_FIELD_NUMBER: _ClassVar[int]
    INITIAL_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    MINIMUM_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    interpreter: str
    languages: _containers.RepeatedScalarFieldContainer[str]
    image_sha256: str
    initial_memory_bytes: int
    minimum_memory_bytes: int
    tier: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., interpreter: _Optional[str] = ..., languages: _Optional[_Iterable[str]] = ..., image_sha256: _Optional[str] = ..., initial_memory_bytes: _Optional[int] = ..., minimum_memory_bytes: _Optional[int] = ..., tier: _Optional[str] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("fuel", "deadline_seconds", "memory_bytes", "output_bytes", "workspace_bytes", "workspace_files", "tool_calls", "tool_calls_in_flight", "tool_call_bytes", "tool_bytes", "tool_seconds", "cpu_seconds", "processes")
    FUEL_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_BYTES_FIELD_NUMBER: _ClassVar[int]
    WORKSPACE_BYTES_FIELD_NUMBER: _ClassVar[int]
    WORKSPACE_FILES_FIELD_NUMBER: _ClassVar[int]
    TOOL_CALLS_FIELD_NUMBER: _ClassVar[int]
    TOOL_CALLS_IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    TOOL_CALL_BYTES_FIELD_NUMBER: _ClassVar[int]
    TOOL_BYTES_FIELD_NUMBER: _ClassVar[int]
    TOOL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    CPU_SECONDS_FIELD_NUMBER: _ClassVar[int]
    PROCESSES_FIELD_NUMBER: _ClassVar[int]
    fuel: int
    deadline_seconds: float
    memory_bytes: int
    output_bytes: int
    workspace_bytes: int
    workspace_files: int
    tool_calls: int
    tool_calls_in_flight: int
    tool_call_bytes: int
    tool_bytes: int
    tool_seconds: float
    cpu_seconds: float
    processes: int
    def __init__(self, fuel: _Optional[int] = ..., deadline_seconds: _Optional[float] = ..., memory_bytes: _Optional[int] = ..., output_bytes: _Optional[int] = ..., workspace_bytes: _Optional[int] = ..., workspace_files: _Optional[int] = ..., tool_calls: _Optional[int] = ..., tool_calls_in_flight: _Optional[int] = ..., tool_call_bytes: _Optional[int] = ..., tool_bytes: _Optional[int] = ..., tool_seconds: _Optional[float] = ..., cpu_seconds: _Optional[float] = ..., processes: _Optional[int] = ...) -> None: ...

class Result(_message.Message):
    __slots__ = ("status", "value", "value_is_repr", "stdout", "stderr", "stdout_truncated", "stderr_truncated", "error", "usage", "limits", "tier", "runtime", "files", "http", "rolled_back", "receipt", "unrepeatable", "transcript", "cached", "seal_holds", "tier_detail", "moved", "exit_status", "array")
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
    FILES_FIELD_NUMBER: _ClassVar[int]
    HTTP_FIELD_NUMBER: _ClassVar[int]
    ROLLED_BACK_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    UNREPEATABLE_FIELD_NUMBER: _ClassVar[int]
    TRANSCRIPT_FIELD_NUMBER: _ClassVar[int]
    CACHED_FIELD_NUMBER: _ClassVar[int]
    SEAL_HOLDS_FIELD_NUMBER: _ClassVar[int]
    TIER_DETAIL_FIELD_NUMBER: _ClassVar[int]
    MOVED_FIELD_NUMBER: _ClassVar[int]
    EXIT_STATUS_FIELD_NUMBER: _ClassVar[int]
    ARRAY_FIELD_NUMBER: _ClassVar[int]
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
    files: _containers.RepeatedCompositeFieldContainer[OutputFile]
    http: _containers.RepeatedCompositeFieldContainer[HttpUse]
    rolled_back: bool
    receipt: Receipt
    unrepeatable: str
    transcript: bytes
    cached: bool
    seal_holds: bool
    tier_detail: str
    moved: str
    exit_status: int
    array: Array
    def __init__(self, status: _Optional[_Union[Status, str]] = ..., value: _Optional[bytes] = ..., value_is_repr: _Optional[bool] = ..., stdout: _Optional[str] = ..., stderr: _Optional[str] = ..., stdout_truncated: _Optional[bool] = ..., stderr_truncated: _Optional[bool] = ..., error: _Optional[_Union[ErrorInfo, _Mapping]] = ..., usage: _Optional[_Union[Usage, _Mapping]] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., tier: _Optional[str] = ..., runtime: _Optional[str] = ..., files: _Optional[_Iterable[_Union[OutputFile, _Mapping]]] = ..., http: _Optional[_Iterable[_Union[HttpUse, _Mapping]]] = ..., rolled_back: _Optional[bool] = ..., receipt: _Optional[_Union[Receipt, _Mapping]] = ..., unrepeatable: _Optional[str] = ..., transcript: _Optional[bytes] = ..., cached: _Optional[bool] = ..., seal_holds: _Optional[bool] = ..., tier_detail: _Optional[str] = ..., moved: _Optional[str] = ..., exit_status: _Optional[int] = ..., array: _Optional[_Union[Array, _Mapping]] = ...) -> None: ...

class Receipt(_message.Message):
    __slots__ = ("version", "runtime", "image", "translator", "engine", "code", "inputs", "grants", "limits", "seed", "start_time", "step", "previous", "forked", "transcript", "status", "output", "fuel", "virtual_ns", "seal")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    TRANSLATOR_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    GRANTS_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_FIELD_NUMBER: _ClassVar[int]
    FORKED_FIELD_NUMBER: _ClassVar[int]
    TRANSCRIPT_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    FUEL_FIELD_NUMBER: _ClassVar[int]
    VIRTUAL_NS_FIELD_NUMBER: _ClassVar[int]
    SEAL_FIELD_NUMBER: _ClassVar[int]
    version: int
    runtime: str
    image: str
    translator: str
    engine: str
    code: str
    inputs: str
    grants: str
    limits: Limits
    seed: int
    start_time: float
    step: int
    previous: str
    forked: bool
    transcript: str
    status: Status
    output: str
    fuel: int
    virtual_ns: int
    seal: str
    def __init__(self, version: _Optional[int] = ..., runtime: _Optional[str] = ..., image: _Optional[str] = ..., translator: _Optional[str] = ..., engine: _Optional[str] = ..., code: _Optional[str] = ..., inputs: _Optional[str] = ..., grants: _Optional[str] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., seed: _Optional[int] = ..., start_time: _Optional[float] = ..., step: _Optional[int] = ..., previous: _Optional[str] = ..., forked: _Optional[bool] = ..., transcript: _Optional[str] = ..., status: _Optional[_Union[Status, str]] = ..., output: _Optional[str] = ..., fuel: _Optional[int] = ..., virtual_ns: _Optional[int] = ..., seal: _Optional[str] = ...) -> None: ...

class OutputFile(_message.Message):
    __slots__ = ("path", "data", "size", "media_type")
    PATH_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    MEDIA_TYPE_FIELD_NUMBER: _ClassVar[int]
    path: str
    data: bytes
    size: int
    media_type: str
    def __init__(self, path: _Optional[str] = ..., data: _Optional[bytes] = ..., size: _Optional[int] = ..., media_type: _Optional[str] = ...) -> None: ...

class HttpUse(_message.Message):
    __slots__ = ("method", "host", "path", "status", "sent_bytes", "received_bytes", "seconds", "allowed", "refused")
    METHOD_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    SENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_BYTES_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    ALLOWED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    method: str
    host: str
    path: str
    status: int
    sent_bytes: int
    received_bytes: int
    seconds: float
    allowed: bool
    refused: str
    def __init__(self, method: _Optional[str] = ..., host: _Optional[str] = ..., path: _Optional[str] = ..., status: _Optional[int] = ..., sent_bytes: _Optional[int] = ..., received_bytes: _Optional[int] = ..., seconds: _Optional[float] = ..., allowed: _Optional[bool] = ..., refused: _Optional[str] = ...) -> None: ...

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
    __slots__ = ("fuel", "wall_seconds", "peak_memory_bytes", "tool_calls", "virtual_ns", "cpu_seconds")
    FUEL_FIELD_NUMBER: _ClassVar[int]
    WALL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    PEAK_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    TOOL_CALLS_FIELD_NUMBER: _ClassVar[int]
    VIRTUAL_NS_FIELD_NUMBER: _ClassVar[int]
    CPU_SECONDS_FIELD_NUMBER: _ClassVar[int]
    fuel: int
    wall_seconds: float
    peak_memory_bytes: int
    tool_calls: int
    virtual_ns: int
    cpu_seconds: float
    def __init__(self, fuel: _Optional[int] = ..., wall_seconds: _Optional[float] = ..., peak_memory_bytes: _Optional[int] = ..., tool_calls: _Optional[int] = ..., virtual_ns: _Optional[int] = ..., cpu_seconds: _Optional[float] = ...) -> None: ...
