import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from vitrine.v1 import product_pb2 as _product_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetProductRequest(_message.Message):
    __slots__ = ("product_id",)
    PRODUCT_ID_FIELD_NUMBER: _ClassVar[int]
    product_id: str
    def __init__(self, product_id: _Optional[str] = ...) -> None: ...

class SetInventoryRequest(_message.Message):
    __slots__ = ("items",)
    class Item(_message.Message):
        __slots__ = ("product_id", "price", "in_stock", "set_time")
        PRODUCT_ID_FIELD_NUMBER: _ClassVar[int]
        PRICE_FIELD_NUMBER: _ClassVar[int]
        IN_STOCK_FIELD_NUMBER: _ClassVar[int]
        SET_TIME_FIELD_NUMBER: _ClassVar[int]
        product_id: str
        price: float
        in_stock: bool
        set_time: _timestamp_pb2.Timestamp
        def __init__(self, product_id: _Optional[str] = ..., price: _Optional[float] = ..., in_stock: bool = ..., set_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[SetInventoryRequest.Item]
    def __init__(self, items: _Optional[_Iterable[_Union[SetInventoryRequest.Item, _Mapping]]] = ...) -> None: ...

class SetInventoryResponse(_message.Message):
    __slots__ = ("written", "outdated", "unknown_product_ids")
    WRITTEN_FIELD_NUMBER: _ClassVar[int]
    OUTDATED_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_PRODUCT_IDS_FIELD_NUMBER: _ClassVar[int]
    written: int
    outdated: int
    unknown_product_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, written: _Optional[int] = ..., outdated: _Optional[int] = ..., unknown_product_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class DeleteProductsRequest(_message.Message):
    __slots__ = ("product_ids",)
    PRODUCT_IDS_FIELD_NUMBER: _ClassVar[int]
    product_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, product_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class DeleteProductsResponse(_message.Message):
    __slots__ = ("deleted", "already_deleted", "unknown_product_ids")
    DELETED_FIELD_NUMBER: _ClassVar[int]
    ALREADY_DELETED_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_PRODUCT_IDS_FIELD_NUMBER: _ClassVar[int]
    deleted: int
    already_deleted: int
    unknown_product_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, deleted: _Optional[int] = ..., already_deleted: _Optional[int] = ..., unknown_product_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class UpsertProductsRequest(_message.Message):
    __slots__ = ("items",)
    class Item(_message.Message):
        __slots__ = ("product", "set_time")
        PRODUCT_FIELD_NUMBER: _ClassVar[int]
        SET_TIME_FIELD_NUMBER: _ClassVar[int]
        product: _product_pb2.Product
        set_time: _timestamp_pb2.Timestamp
        def __init__(self, product: _Optional[_Union[_product_pb2.Product, _Mapping]] = ..., set_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[UpsertProductsRequest.Item]
    def __init__(self, items: _Optional[_Iterable[_Union[UpsertProductsRequest.Item, _Mapping]]] = ...) -> None: ...

class UpsertProductsResponse(_message.Message):
    __slots__ = ("written", "outdated", "pending_product_ids")
    WRITTEN_FIELD_NUMBER: _ClassVar[int]
    OUTDATED_FIELD_NUMBER: _ClassVar[int]
    PENDING_PRODUCT_IDS_FIELD_NUMBER: _ClassVar[int]
    written: int
    outdated: int
    pending_product_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, written: _Optional[int] = ..., outdated: _Optional[int] = ..., pending_product_ids: _Optional[_Iterable[str]] = ...) -> None: ...
