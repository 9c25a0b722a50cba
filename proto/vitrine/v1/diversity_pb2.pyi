from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class Diversity(_message.Message):
    __slots__ = ("column", "most")
    COLUMN_FIELD_NUMBER: _ClassVar[int]
    MOST_FIELD_NUMBER: _ClassVar[int]
    column: str
    most: int
    def __init__(self, column: _Optional[str] = ..., most: _Optional[int] = ...) -> None: ...
