from google.protobuf import field_mask_pb2 as _field_mask_pb2
from vitrine.v1 import diversity_pb2 as _diversity_pb2
from vitrine.v1 import event_pb2 as _event_pb2
from vitrine.v1 import filter_pb2 as _filter_pb2
from vitrine.v1 import hit_pb2 as _hit_pb2
from vitrine.v1 import order_pb2 as _order_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RecommendRequest(_message.Message):
    __slots__ = ("user_id", "recent_product_ids", "user_vector", "filter", "page_size", "page_token", "request_id", "read_mask", "explain", "exclude", "diversity", "without_rules", "order_by")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    RECENT_PRODUCT_IDS_FIELD_NUMBER: _ClassVar[int]
    USER_VECTOR_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    READ_MASK_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_FIELD_NUMBER: _ClassVar[int]
    DIVERSITY_FIELD_NUMBER: _ClassVar[int]
    WITHOUT_RULES_FIELD_NUMBER: _ClassVar[int]
    ORDER_BY_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    recent_product_ids: _containers.RepeatedScalarFieldContainer[str]
    user_vector: _containers.RepeatedScalarFieldContainer[float]
    filter: _filter_pb2.Filter
    page_size: int
    page_token: str
    request_id: str
    read_mask: _field_mask_pb2.FieldMask
    explain: bool
    exclude: _containers.RepeatedScalarFieldContainer[_event_pb2.Event.Type]
    diversity: _diversity_pb2.Diversity
    without_rules: bool
    order_by: _order_pb2.OrderBy
    def __init__(self, user_id: _Optional[str] = ..., recent_product_ids: _Optional[_Iterable[str]] = ..., user_vector: _Optional[_Iterable[float]] = ..., filter: _Optional[_Union[_filter_pb2.Filter, _Mapping]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., request_id: _Optional[str] = ..., read_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ..., explain: bool = ..., exclude: _Optional[_Iterable[_Union[_event_pb2.Event.Type, str]]] = ..., diversity: _Optional[_Union[_diversity_pb2.Diversity, _Mapping]] = ..., without_rules: bool = ..., order_by: _Optional[_Union[_order_pb2.OrderBy, _Mapping]] = ...) -> None: ...

class RecommendResponse(_message.Message):
    __slots__ = ("hits", "next_page_token", "info", "fallback", "unknown_product_ids")
    class Fallback(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        FALLBACK_UNSPECIFIED: _ClassVar[RecommendResponse.Fallback]
        NONE: _ClassVar[RecommendResponse.Fallback]
        POPULAR: _ClassVar[RecommendResponse.Fallback]
    FALLBACK_UNSPECIFIED: RecommendResponse.Fallback
    NONE: RecommendResponse.Fallback
    POPULAR: RecommendResponse.Fallback
    HITS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    INFO_FIELD_NUMBER: _ClassVar[int]
    FALLBACK_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_PRODUCT_IDS_FIELD_NUMBER: _ClassVar[int]
    hits: _containers.RepeatedCompositeFieldContainer[_hit_pb2.Hit]
    next_page_token: str
    info: _hit_pb2.AnswerInfo
    fallback: RecommendResponse.Fallback
    unknown_product_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, hits: _Optional[_Iterable[_Union[_hit_pb2.Hit, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., info: _Optional[_Union[_hit_pb2.AnswerInfo, _Mapping]] = ..., fallback: _Optional[_Union[RecommendResponse.Fallback, str]] = ..., unknown_product_ids: _Optional[_Iterable[str]] = ...) -> None: ...
