from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class OrderBy(_message.Message):
    __slots__ = ("column", "descending", "among")
    COLUMN_FIELD_NUMBER: _ClassVar[int]
    DESCENDING_FIELD_NUMBER: _ClassVar[int]
    AMONG_FIELD_NUMBER: _ClassVar[int]
    column: str
    descending: bool
    among: int
    def __init__(self, column: _Optional[str] = ..., descending: bool = ..., among: _Optional[int] = ...) -> None: ...
