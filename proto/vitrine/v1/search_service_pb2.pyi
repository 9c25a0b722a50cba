from google.protobuf import field_mask_pb2 as _field_mask_pb2
from vitrine.v1 import diversity_pb2 as _diversity_pb2
from vitrine.v1 import facet_pb2 as _facet_pb2
from vitrine.v1 import filter_pb2 as _filter_pb2
from vitrine.v1 import hit_pb2 as _hit_pb2
from vitrine.v1 import order_pb2 as _order_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SearchRequest(_message.Message):
    __slots__ = ("query", "query_vector", "user_id", "recent_product_ids", "filter", "page_size", "page_token", "request_id", "read_mask", "explain", "facets", "diversity", "without_rules", "order_by")
    QUERY_FIELD_NUMBER: _ClassVar[int]
    QUERY_VECTOR_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    RECENT_PRODUCT_IDS_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    READ_MASK_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    FACETS_FIELD_NUMBER: _ClassVar[int]
    DIVERSITY_FIELD_NUMBER: _ClassVar[int]
    WITHOUT_RULES_FIELD_NUMBER: _ClassVar[int]
    ORDER_BY_FIELD_NUMBER: _ClassVar[int]
    query: str
    query_vector: QueryVector
    user_id: str
    recent_product_ids: _containers.RepeatedScalarFieldContainer[str]
    filter: _filter_pb2.Filter
    page_size: int
    page_token: str
    request_id: str
    read_mask: _field_mask_pb2.FieldMask
    explain: bool
    facets: _containers.RepeatedCompositeFieldContainer[_facet_pb2.FacetSpec]
    diversity: _diversity_pb2.Diversity
    without_rules: bool
    order_by: _order_pb2.OrderBy
    def __init__(self, query: _Optional[str] = ..., query_vector: _Optional[_Union[QueryVector, _Mapping]] = ..., user_id: _Optional[str] = ..., recent_product_ids: _Optional[_Iterable[str]] = ..., filter: _Optional[_Union[_filter_pb2.Filter, _Mapping]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., request_id: _Optional[str] = ..., read_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ..., explain: bool = ..., facets: _Optional[_Iterable[_Union[_facet_pb2.FacetSpec, _Mapping]]] = ..., diversity: _Optional[_Union[_diversity_pb2.Diversity, _Mapping]] = ..., without_rules: bool = ..., order_by: _Optional[_Union[_order_pb2.OrderBy, _Mapping]] = ...) -> None: ...

class QueryVector(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, values: _Optional[_Iterable[float]] = ...) -> None: ...

class SearchResponse(_message.Message):
    __slots__ = ("hits", "next_page_token", "info", "facets", "redirect_uri", "corrected_query")
    HITS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    INFO_FIELD_NUMBER: _ClassVar[int]
    FACETS_FIELD_NUMBER: _ClassVar[int]
    REDIRECT_URI_FIELD_NUMBER: _ClassVar[int]
    CORRECTED_QUERY_FIELD_NUMBER: _ClassVar[int]
    hits: _containers.RepeatedCompositeFieldContainer[_hit_pb2.Hit]
    next_page_token: str
    info: _hit_pb2.AnswerInfo
    facets: _containers.RepeatedCompositeFieldContainer[_facet_pb2.Facet]
    redirect_uri: str
    corrected_query: str
    def __init__(self, hits: _Optional[_Iterable[_Union[_hit_pb2.Hit, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., info: _Optional[_Union[_hit_pb2.AnswerInfo, _Mapping]] = ..., facets: _Optional[_Iterable[_Union[_facet_pb2.Facet, _Mapping]]] = ..., redirect_uri: _Optional[str] = ..., corrected_query: _Optional[str] = ...) -> None: ...

class SimilarRequest(_message.Message):
    __slots__ = ("product_id", "filter", "page_size", "page_token", "request_id", "read_mask", "without_rules")
    PRODUCT_ID_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    READ_MASK_FIELD_NUMBER: _ClassVar[int]
    WITHOUT_RULES_FIELD_NUMBER: _ClassVar[int]
    product_id: str
    filter: _filter_pb2.Filter
    page_size: int
    page_token: str
    request_id: str
    read_mask: _field_mask_pb2.FieldMask
    without_rules: bool
    def __init__(self, product_id: _Optional[str] = ..., filter: _Optional[_Union[_filter_pb2.Filter, _Mapping]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., request_id: _Optional[str] = ..., read_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ..., without_rules: bool = ...) -> None: ...

class SimilarResponse(_message.Message):
    __slots__ = ("hits", "next_page_token", "info")
    HITS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    INFO_FIELD_NUMBER: _ClassVar[int]
    hits: _containers.RepeatedCompositeFieldContainer[_hit_pb2.Hit]
    next_page_token: str
    info: _hit_pb2.AnswerInfo
    def __init__(self, hits: _Optional[_Iterable[_Union[_hit_pb2.Hit, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., info: _Optional[_Union[_hit_pb2.AnswerInfo, _Mapping]] = ...) -> None: ...

class SuggestRequest(_message.Message):
    __slots__ = ("query", "max_suggestions")
    QUERY_FIELD_NUMBER: _ClassVar[int]
    MAX_SUGGESTIONS_FIELD_NUMBER: _ClassVar[int]
    query: str
    max_suggestions: int
    def __init__(self, query: _Optional[str] = ..., max_suggestions: _Optional[int] = ...) -> None: ...

class SuggestResponse(_message.Message):
    __slots__ = ("queries", "values")
    QUERIES_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    queries: _containers.RepeatedCompositeFieldContainer[QuerySuggestion]
    values: _containers.RepeatedCompositeFieldContainer[ValueSuggestion]
    def __init__(self, queries: _Optional[_Iterable[_Union[QuerySuggestion, _Mapping]]] = ..., values: _Optional[_Iterable[_Union[ValueSuggestion, _Mapping]]] = ...) -> None: ...

class QuerySuggestion(_message.Message):
    __slots__ = ("text",)
    TEXT_FIELD_NUMBER: _ClassVar[int]
    text: str
    def __init__(self, text: _Optional[str] = ...) -> None: ...

class ValueSuggestion(_message.Message):
    __slots__ = ("column", "value", "products")
    COLUMN_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    PRODUCTS_FIELD_NUMBER: _ClassVar[int]
    column: str
    value: str
    products: int
    def __init__(self, column: _Optional[str] = ..., value: _Optional[str] = ..., products: _Optional[int] = ...) -> None: ...
