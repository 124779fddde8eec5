"""A request's body, validated: what the relay and the accounts need to know of it.

Nothing here depends on engines. What an engine is sent is in ``rewrite``.
"""

import re
from typing import Any, Final

from filature.errors import InvalidRequest
from filature.request.anthropic import COUNT_TOKENS, MESSAGES
from filature.request.chat import CHAT
from filature.request.cocoon import COCOON_FIELDS, COCOON_RULES
from filature.request.completions import COMPLETIONS
from filature.request.embeddings import EMBEDDINGS
from filature.request.fields import prompt_count
from filature.request.json_body import (
    has_distinct_keys,
    key_text,
    load_object,
    refuse_duplicates,
)
from filature.request.limits import RequestLimits
from filature.request.prompt_size import BYTES_PER_ID, PromptSize, measure_prompt
from filature.request.responses import RESPONSES
from filature.request.rules import (
    DialectRules,
    Rule,
    integer,
    invalid,
    missing,
    shown_name,
    too_long,
    unknown,
)
from filature.wire.dialect import Dialect
from filature.wire.members import Member, member_at, members

_SEARCHED_KEYS_MAX: Final = 48
"""A body with more keys is scanned once instead of searched once per key."""
_BACKSLASH: Final = 0x5C  # looked for as a number: `in` with bytes is several times as slow
_ESCAPED_ASCII: Final = re.compile(rb"\\u00[2-7]")
"""By which a key can be written so that a search does not find it."""


class _Known:
    """A field: its key as it stands in JSON, alone and with the colon, and its rule."""

    __slots__ = ("key", "rule", "token")

    def __init__(self, name: str, rule: Rule) -> None:
        self.token = f'"{name}"'.encode()
        self.key = re.compile(self.token + rb"[ \t\r\n]*+:")
        self.rule = rule


class _Table:
    __slots__ = ("dialect", "known")

    def __init__(self, dialect: DialectRules, known: dict[str, _Known]) -> None:
        self.dialect = dialect
        self.known = known


def _table(dialect: DialectRules) -> _Table:
    rules = dialect.rules | COCOON_RULES
    return _Table(dialect, {name: _Known(name, rule) for name, rule in rules.items()})


RULES: Final = {
    Dialect.CHAT: CHAT,
    Dialect.COMPLETIONS: COMPLETIONS,
    Dialect.EMBEDDINGS: EMBEDDINGS,
    Dialect.RESPONSES: RESPONSES,
    Dialect.MESSAGES: MESSAGES,
    Dialect.COUNT_TOKENS: COUNT_TOKENS,
}
_TABLES: Final = {dialect: _table(rules) for dialect, rules in RULES.items()}


class ParsedRequest:
    """A body that passed. ``body`` and ``fields`` are the client's and never written to."""

    __slots__ = (
        "_prompt_size",
        "_searchable",
        "best_of",
        "body",
        "continuous_usage",
        "dialect",
        "distinct",
        "enable_debug",
        "fields",
        "has_cocoon_fields",
        "include_usage",
        "limits",
        "max_coefficient",
        "max_tokens",
        "model",
        "n",
        "prompts",
        "request_guid",
        "rules",
        "stream",
        "timeout_s",
    )

    def __init__(
        self,
        dialect: Dialect,
        rules: DialectRules,
        limits: RequestLimits,
        body: bytes,
        fields: dict[str, Any],
    ) -> None:
        self.dialect = dialect
        self.rules = rules
        self.limits = limits
        self.body = body
        """As the client sent it, without a byte order mark."""
        self.fields = fields
        """What ``body`` says."""
        self.distinct = has_distinct_keys(body, fields)
        """It is proven that no object in ``body`` has a key twice."""
        self._searchable: bool | None = None
        self.model: str = fields["model"]
        self.stream = rules.streams and fields.get("stream") is True
        self.n = 1
        """Choices asked for per prompt."""
        self.best_of = 1
        """Choices generated per prompt, never below ``n``: what bounds money."""
        self.prompts = 1
        """Prompts in a completions or embeddings batch, else 1."""
        self.max_tokens: int | None = None
        """Completion tokens allowed per choice, the cap applied; None: as many as the engine likes."""
        self.include_usage = False
        """The client asked for usage at the end of its stream."""
        self.continuous_usage = False
        """The client asked for usage on every event."""
        self.request_guid: str | None = None
        self.timeout_s: float | None = None
        self.max_coefficient: int | None = None
        self.enable_debug = False
        self.has_cocoon_fields = False
        self._prompt_size: PromptSize | None = None

    def __repr__(self) -> str:
        """Nothing of what was asked."""
        return f"<ParsedRequest {self.dialect} model={self.model!r} stream={self.stream}>"

    @property
    def searchable(self) -> bool:
        """Each key's first occurrence with a colon, in all of ``body``, is the top level's."""
        searchable = self._searchable
        if searchable is None:
            known = _TABLES[self.dialect].known
            searchable = self._searchable = _is_searchable(self.body, self.fields, known)
        return searchable

    @property
    def prompt_size(self) -> PromptSize:
        """Measured when first asked for."""
        size = self._prompt_size
        if size is None:
            size = self._prompt_size = measure_prompt(self.dialect, self.fields)
        return size

    @property
    def answers(self) -> int:
        """That an engine makes of it: each choice of each prompt is one."""
        return self.best_of * self.prompts

    @property
    def text_bytes(self) -> int:
        """UTF-8 bytes of all text, tool and schema fields: at least as many as tokens of them."""
        return self.prompt_size.text_bytes

    @property
    def prompt_ids(self) -> int:
        """Token ids in prompts given as such, over all prompts."""
        return self.prompt_size.ids

    @property
    def media_parts(self) -> int:
        """Images, audio, video and files."""
        return self.prompt_size.media_parts

    def prompt_text_bytes(self) -> int:
        """What an estimate of the prompt's tokens is made from: ids count as average tokens."""
        size = self.prompt_size
        return size.text_bytes + size.ids * BYTES_PER_ID

    def member(self, name: str) -> Member:
        """Where the member ``name``, which ``fields`` has, stands in ``body``."""
        body, known = self.body, _TABLES[self.dialect].known.get(name)
        if self.searchable and known is not None:
            key = known.key.search(body)
            assert key is not None  # `fields` has it, and no escape hides it
            return member_at(body, key.start())
        return next(member for raw, member in members(body) if key_text(raw) == name)


def parse_request(dialect: Dialect, body: bytes, limits: RequestLimits) -> ParsedRequest:
    """Validate a body.

    Raises InvalidRequest, whose ``param`` names the field and whose ``code`` is OpenAI's where it
    has one, or RequestTooLarge.
    """
    table = _TABLES[dialect]
    rules, known = table.dialect, table.known
    body, fields = load_object(body, limits)
    if len(fields) > limits.fields_max:
        raise _too_many_fields("The body", None, limits)
    for required in rules.required:
        if fields.get(required[0]) is None:
            _check_instead(fields, required)
    _check_fields(fields, known, strict=limits.strict)
    request = ParsedRequest(dialect, rules, limits, body, fields)
    if not request.distinct and not request.searchable:
        refuse_duplicates(body, 0, "", len(fields))
    if limits.strict:
        _check_strictly(rules, fields)
    if dialect.has_choices:
        request.n, request.best_of = _choices(fields, limits)
    if rules.prompts:
        request.prompts = _prompts(rules, fields, limits)
    request.max_tokens = _allowed_tokens(rules, fields, limits.max_tokens_max)
    options = fields.get("stream_options")
    if options is not None and rules.streams and "stream_options" in known:
        _read_stream_options(request, options)
    if not COCOON_FIELDS.isdisjoint(fields):
        _read_cocoon_fields(request)
    return request


def _check_fields(fields: dict[str, Any], known: dict[str, _Known], *, strict: bool) -> None:
    """Each value by its rule."""
    for key, value in fields.items():
        entry = known.get(key)
        if entry is None:
            _check_unknown(key, known, strict=strict)
        elif value is not None:
            entry.rule(value, key)


def _is_searchable(body: bytes, fields: dict[str, Any], known: dict[str, _Known]) -> bool:
    """Whether each key is found by its token, which proves that none occurs twice at the top level.

    A known key occurs in the text as its token, unless it is written with escapes. A token that
    occurs once is that key; so is one that occurs more often, as a value too, but only once before
    a colon. Otherwise nothing is proven.
    """
    if len(fields) > _SEARCHED_KEYS_MAX:
        return False
    if _BACKSLASH in body and body.find(b"\\u00") >= 0 and _ESCAPED_ASCII.search(body) is not None:
        return False
    count = body.count
    for key in fields:
        entry = known.get(key)
        if entry is None:
            if not (key.isidentifier() and key.isascii() and count(f'"{key}"'.encode()) == 1):
                return False
        elif count(entry.token) != 1 and len(entry.key.findall(body)) != 1:
            return False
    return True


def _too_many_fields(what: str, param: str | None, limits: RequestLimits) -> InvalidRequest:
    return InvalidRequest(
        f"{what} has too many fields; at most {limits.fields_max} are allowed.",
        param=param,
        code="too_many_fields",
    )


def _check_unknown(key: str, known: dict[str, _Known], *, strict: bool) -> None:
    folded = key.casefold()
    if folded in known:  # some engines ignore case: such a key would go round every check
        where = shown_name(key)
        raise InvalidRequest(
            f"{where} is not a field of this API; write {folded}.",
            param=where,
            code="unknown_parameter",
        )
    if strict:
        raise unknown(key)


def _check_instead(fields: dict[str, Any], required: tuple[str, ...]) -> None:
    name, *instead = required
    if all(fields.get(other) is None for other in instead):
        raise missing(name, tuple(instead))


def _check_strictly(rules: DialectRules, fields: dict[str, Any]) -> None:
    for name, rule in rules.strict_rules.items():
        if fields.get(name) is not None:
            rule(fields[name], name)
    if rules.related_strictly is not None:
        rules.related_strictly(fields)


def _choices(fields: dict[str, Any], limits: RequestLimits) -> tuple[int, int]:
    """``n`` and ``best_of``. ``n_cmpl`` is llama.cpp's own name of ``n``, and goes before it there."""
    n, best_of, n_cmpl = fields.get("n"), fields.get("best_of"), fields.get("n_cmpl")
    if n is None and best_of is None and n_cmpl is None:
        return 1, 1
    for name, value in (("n", n), ("best_of", best_of), ("n_cmpl", n_cmpl)):
        if value is not None:
            integer(1, limits.n_max)(value, name)
    n = max(n or 1, n_cmpl or 1)
    best_of = best_of or n
    if best_of < n:
        raise invalid("best_of", f"at least n, which is {n}", best_of)
    return n, best_of


def _prompts(rules: DialectRules, fields: dict[str, Any], limits: RequestLimits) -> int:
    count = 0
    for name in rules.prompts:
        count += prompt_count(fields.get(name))
        if count > limits.prompts_max:
            raise too_long(name, limits.prompts_max, count)
    return count or 1


def _allowed_tokens(rules: DialectRules, fields: dict[str, Any], cap: int | None) -> int | None:
    """The largest number given, lowered to ``cap``: engines differ in which of two they heed."""
    if not rules.max_tokens:
        return None
    allowed: int | None = None
    for name in rules.max_tokens:
        value = fields.get(name)
        if value is not None and (allowed is None or value > allowed):
            allowed = value
    return cap if cap is not None and (allowed is None or allowed > cap) else allowed


def _read_stream_options(request: ParsedRequest, options: dict[str, Any]) -> None:
    if not request.stream:
        raise InvalidRequest(
            "stream_options is allowed with stream: true only; set that, or leave stream_options out.",
            param="stream_options",
            code="invalid_value",
        )
    if len(options) > request.limits.fields_max:
        raise _too_many_fields("stream_options", "stream_options", request.limits)
    if not request.distinct:
        start = request.member("stream_options").value_start
        refuse_duplicates(request.body, start, "stream_options.", len(options))
    if request.dialect.has_choices:
        request.include_usage = options.get("include_usage") is True
        request.continuous_usage = options.get("continuous_usage_stats") is True


def _read_cocoon_fields(request: ParsedRequest) -> None:
    get = request.fields.get
    request.has_cocoon_fields = True
    request.request_guid = get("request_guid")
    request.timeout_s = get("timeout")
    request.max_coefficient = get("max_coefficient")
    request.enable_debug = get("enable_debug") is True
