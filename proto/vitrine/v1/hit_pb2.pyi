import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from vitrine.v1 import product_pb2 as _product_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Hit(_message.Message):
    __slots__ = ("product", "rank", "score", "recall_sources", "member_scores", "explanation")
    PRODUCT_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    RECALL_SOURCES_FIELD_NUMBER: _ClassVar[int]
    MEMBER_SCORES_FIELD_NUMBER: _ClassVar[int]
    EXPLANATION_FIELD_NUMBER: _ClassVar[int]
    product: _product_pb2.Product
    rank: int
    score: float
    recall_sources: _containers.RepeatedCompositeFieldContainer[RecallSource]
    member_scores: MemberScores
    explanation: Explanation
    def __init__(self, product: _Optional[_Union[_product_pb2.Product, _Mapping]] = ..., rank: _Optional[int] = ..., score: _Optional[float] = ..., recall_sources: _Optional[_Iterable[_Union[RecallSource, _Mapping]]] = ..., member_scores: _Optional[_Union[MemberScores, _Mapping]] = ..., explanation: _Optional[_Union[Explanation, _Mapping]] = ...) -> None: ...

class Explanation(_message.Message):
    __slots__ = ("subject", "base", "contributions", "others", "total")
    class Subject(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        SUBJECT_UNSPECIFIED: _ClassVar[Explanation.Subject]
        FUSED: _ClassVar[Explanation.Subject]
        TREES: _ClassVar[Explanation.Subject]
    SUBJECT_UNSPECIFIED: Explanation.Subject
    FUSED: Explanation.Subject
    TREES: Explanation.Subject
    class Contribution(_message.Message):
        __slots__ = ("name", "value", "contribution")
        NAME_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        CONTRIBUTION_FIELD_NUMBER: _ClassVar[int]
        name: str
        value: float
        contribution: float
        def __init__(self, name: _Optional[str] = ..., value: _Optional[float] = ..., contribution: _Optional[float] = ...) -> None: ...
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTIONS_FIELD_NUMBER: _ClassVar[int]
    OTHERS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    subject: Explanation.Subject
    base: float
    contributions: _containers.RepeatedCompositeFieldContainer[Explanation.Contribution]
    others: float
    total: float
    def __init__(self, subject: _Optional[_Union[Explanation.Subject, str]] = ..., base: _Optional[float] = ..., contributions: _Optional[_Iterable[_Union[Explanation.Contribution, _Mapping]]] = ..., others: _Optional[float] = ..., total: _Optional[float] = ...) -> None: ...

class RecallSource(_message.Message):
    __slots__ = ("channel", "rank", "score")
    class Channel(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        CHANNEL_UNSPECIFIED: _ClassVar[RecallSource.Channel]
        DENSE: _ClassVar[RecallSource.Channel]
        USER: _ClassVar[RecallSource.Channel]
        HISTORY: _ClassVar[RecallSource.Channel]
        POPULAR: _ClassVar[RecallSource.Channel]
        RELATED: _ClassVar[RecallSource.Channel]
        LEXICAL: _ClassVar[RecallSource.Channel]
        ENGAGED: _ClassVar[RecallSource.Channel]
        COVISITED: _ClassVar[RecallSource.Channel]
        TRENDING: _ClassVar[RecallSource.Channel]
    CHANNEL_UNSPECIFIED: RecallSource.Channel
    DENSE: RecallSource.Channel
    USER: RecallSource.Channel
    HISTORY: RecallSource.Channel
    POPULAR: RecallSource.Channel
    RELATED: RecallSource.Channel
    LEXICAL: RecallSource.Channel
    ENGAGED: RecallSource.Channel
    COVISITED: RecallSource.Channel
    TRENDING: RecallSource.Channel
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    channel: RecallSource.Channel
    rank: int
    score: float
    def __init__(self, channel: _Optional[_Union[RecallSource.Channel, str]] = ..., rank: _Optional[int] = ..., score: _Optional[float] = ...) -> None: ...

class MemberScores(_message.Message):
    __slots__ = ("network", "trees", "recall")
    NETWORK_FIELD_NUMBER: _ClassVar[int]
    TREES_FIELD_NUMBER: _ClassVar[int]
    RECALL_FIELD_NUMBER: _ClassVar[int]
    network: float
    trees: float
    recall: float
    def __init__(self, network: _Optional[float] = ..., trees: _Optional[float] = ..., recall: _Optional[float] = ...) -> None: ...

class Versions(_message.Message):
    __slots__ = ("release", "index", "model", "encoder")
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ENCODER_FIELD_NUMBER: _ClassVar[int]
    release: str
    index: str
    model: str
    encoder: str
    def __init__(self, release: _Optional[str] = ..., index: _Optional[str] = ..., model: _Optional[str] = ..., encoder: _Optional[str] = ...) -> None: ...

class StageTiming(_message.Message):
    __slots__ = ("stage", "duration")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    DURATION_FIELD_NUMBER: _ClassVar[int]
    stage: str
    duration: _duration_pb2.Duration
    def __init__(self, stage: _Optional[str] = ..., duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Degradation(_message.Message):
    __slots__ = ("stage", "reason")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    stage: str
    reason: str
    def __init__(self, stage: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class AppliedRule(_message.Message):
    __slots__ = ("name", "pinned_product_ids", "rewritten_query")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PINNED_PRODUCT_IDS_FIELD_NUMBER: _ClassVar[int]
    REWRITTEN_QUERY_FIELD_NUMBER: _ClassVar[int]
    name: str
    pinned_product_ids: _containers.RepeatedScalarFieldContainer[str]
    rewritten_query: str
    def __init__(self, name: _Optional[str] = ..., pinned_product_ids: _Optional[_Iterable[str]] = ..., rewritten_query: _Optional[str] = ...) -> None: ...

class AnswerInfo(_message.Message):
    __slots__ = ("attribution_token", "request_id", "versions", "timings", "degraded", "candidates", "applied_rules")
    ATTRIBUTION_TOKEN_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    APPLIED_RULES_FIELD_NUMBER: _ClassVar[int]
    attribution_token: str
    request_id: str
    versions: Versions
    timings: _containers.RepeatedCompositeFieldContainer[StageTiming]
    degraded: _containers.RepeatedCompositeFieldContainer[Degradation]
    candidates: int
    applied_rules: _containers.RepeatedCompositeFieldContainer[AppliedRule]
    def __init__(self, attribution_token: _Optional[str] = ..., request_id: _Optional[str] = ..., versions: _Optional[_Union[Versions, _Mapping]] = ..., timings: _Optional[_Iterable[_Union[StageTiming, _Mapping]]] = ..., degraded: _Optional[_Iterable[_Union[Degradation, _Mapping]]] = ..., candidates: _Optional[int] = ..., applied_rules: _Optional[_Iterable[_Union[AppliedRule, _Mapping]]] = ...) -> None: ...
