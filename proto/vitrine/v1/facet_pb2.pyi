from vitrine.v1 import filter_pb2 as _filter_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FacetSpec(_message.Message):
    __slots__ = ("column", "limit")
    COLUMN_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    column: str
    limit: int
    def __init__(self, column: _Optional[str] = ..., limit: _Optional[int] = ...) -> None: ...

class Facet(_message.Message):
    __slots__ = ("column", "counts", "min", "max", "missing")
    class Count(_message.Message):
        __slots__ = ("value", "count")
        VALUE_FIELD_NUMBER: _ClassVar[int]
        COUNT_FIELD_NUMBER: _ClassVar[int]
        value: _filter_pb2.Value
        count: int
        def __init__(self, value: _Optional[_Union[_filter_pb2.Value, _Mapping]] = ..., count: _Optional[int] = ...) -> None: ...
    COLUMN_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    MIN_FIELD_NUMBER: _ClassVar[int]
    MAX_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    column: str
    counts: _containers.RepeatedCompositeFieldContainer[Facet.Count]
    min: float
    max: float
    missing: int
    def __init__(self, column: _Optional[str] = ..., counts: _Optional[_Iterable[_Union[Facet.Count, _Mapping]]] = ..., min: _Optional[float] = ..., max: _Optional[float] = ..., missing: _Optional[int] = ...) -> None: ...
