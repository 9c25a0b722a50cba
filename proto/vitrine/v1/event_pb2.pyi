import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Event(_message.Message):
    __slots__ = ("id", "type", "event_time", "user_id", "session_id", "attribution_token", "query", "items")
    class Type(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        TYPE_UNSPECIFIED: _ClassVar[Event.Type]
        IMPRESSION: _ClassVar[Event.Type]
        VIEW: _ClassVar[Event.Type]
        CLICK: _ClassVar[Event.Type]
        ADD_TO_CART: _ClassVar[Event.Type]
        PURCHASE: _ClassVar[Event.Type]
        RETURN: _ClassVar[Event.Type]
        RATING: _ClassVar[Event.Type]
    TYPE_UNSPECIFIED: Event.Type
    IMPRESSION: Event.Type
    VIEW: Event.Type
    CLICK: Event.Type
    ADD_TO_CART: Event.Type
    PURCHASE: Event.Type
    RETURN: Event.Type
    RATING: Event.Type
    class Item(_message.Message):
        __slots__ = ("product_id", "position", "quantity", "price", "value")
        PRODUCT_ID_FIELD_NUMBER: _ClassVar[int]
        POSITION_FIELD_NUMBER: _ClassVar[int]
        QUANTITY_FIELD_NUMBER: _ClassVar[int]
        PRICE_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        product_id: str
        position: int
        quantity: float
        price: float
        value: float
        def __init__(self, product_id: _Optional[str] = ..., position: _Optional[int] = ..., quantity: _Optional[float] = ..., price: _Optional[float] = ..., value: _Optional[float] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTION_TOKEN_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    id: str
    type: Event.Type
    event_time: _timestamp_pb2.Timestamp
    user_id: str
    session_id: str
    attribution_token: str
    query: str
    items: _containers.RepeatedCompositeFieldContainer[Event.Item]
    def __init__(self, id: _Optional[str] = ..., type: _Optional[_Union[Event.Type, str]] = ..., event_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., user_id: _Optional[str] = ..., session_id: _Optional[str] = ..., attribution_token: _Optional[str] = ..., query: _Optional[str] = ..., items: _Optional[_Iterable[_Union[Event.Item, _Mapping]]] = ...) -> None: ...
