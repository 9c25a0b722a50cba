import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from vitrine.v1 import hit_pb2 as _hit_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("versions", "start_time", "release_load_time", "now", "products", "users", "journal_sequence", "index_kind", "index_recall", "encoder_backend", "fusion", "filter_columns", "vector_dimensions", "user_vector_dimensions", "waiting", "queries_asked", "queries_cached", "fallbacks", "queries_by_table", "products_with_live_inventory", "products_deleted", "products_added", "products_pending", "products_changed", "rules", "rules_faults")
    class FilterColumnsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class FallbacksEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    RELEASE_LOAD_TIME_FIELD_NUMBER: _ClassVar[int]
    NOW_FIELD_NUMBER: _ClassVar[int]
    PRODUCTS_FIELD_NUMBER: _ClassVar[int]
    USERS_FIELD_NUMBER: _ClassVar[int]
    JOURNAL_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    INDEX_KIND_FIELD_NUMBER: _ClassVar[int]
    INDEX_RECALL_FIELD_NUMBER: _ClassVar[int]
    ENCODER_BACKEND_FIELD_NUMBER: _ClassVar[int]
    FUSION_FIELD_NUMBER: _ClassVar[int]
    FILTER_COLUMNS_FIELD_NUMBER: _ClassVar[int]
    VECTOR_DIMENSIONS_FIELD_NUMBER: _ClassVar[int]
    USER_VECTOR_DIMENSIONS_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    QUERIES_ASKED_FIELD_NUMBER: _ClassVar[int]
    QUERIES_CACHED_FIELD_NUMBER: _ClassVar[int]
    FALLBACKS_FIELD_NUMBER: _ClassVar[int]
    QUERIES_BY_TABLE_FIELD_NUMBER: _ClassVar[int]
    PRODUCTS_WITH_LIVE_INVENTORY_FIELD_NUMBER: _ClassVar[int]
    PRODUCTS_DELETED_FIELD_NUMBER: _ClassVar[int]
    PRODUCTS_ADDED_FIELD_NUMBER: _ClassVar[int]
    PRODUCTS_PENDING_FIELD_NUMBER: _ClassVar[int]
    PRODUCTS_CHANGED_FIELD_NUMBER: _ClassVar[int]
    RULES_FIELD_NUMBER: _ClassVar[int]
    RULES_FAULTS_FIELD_NUMBER: _ClassVar[int]
    versions: _hit_pb2.Versions
    start_time: _timestamp_pb2.Timestamp
    release_load_time: _timestamp_pb2.Timestamp
    now: _timestamp_pb2.Timestamp
    products: int
    users: int
    journal_sequence: int
    index_kind: str
    index_recall: float
    encoder_backend: str
    fusion: str
    filter_columns: _containers.ScalarMap[str, str]
    vector_dimensions: int
    user_vector_dimensions: int
    waiting: int
    queries_asked: int
    queries_cached: int
    fallbacks: _containers.ScalarMap[str, int]
    queries_by_table: int
    products_with_live_inventory: int
    products_deleted: int
    products_added: int
    products_pending: int
    products_changed: int
    rules: int
    rules_faults: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, versions: _Optional[_Union[_hit_pb2.Versions, _Mapping]] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., release_load_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., now: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., products: _Optional[int] = ..., users: _Optional[int] = ..., journal_sequence: _Optional[int] = ..., index_kind: _Optional[str] = ..., index_recall: _Optional[float] = ..., encoder_backend: _Optional[str] = ..., fusion: _Optional[str] = ..., filter_columns: _Optional[_Mapping[str, str]] = ..., vector_dimensions: _Optional[int] = ..., user_vector_dimensions: _Optional[int] = ..., waiting: _Optional[int] = ..., queries_asked: _Optional[int] = ..., queries_cached: _Optional[int] = ..., fallbacks: _Optional[_Mapping[str, int]] = ..., queries_by_table: _Optional[int] = ..., products_with_live_inventory: _Optional[int] = ..., products_deleted: _Optional[int] = ..., products_added: _Optional[int] = ..., products_pending: _Optional[int] = ..., products_changed: _Optional[int] = ..., rules: _Optional[int] = ..., rules_faults: _Optional[_Iterable[str]] = ...) -> None: ...
