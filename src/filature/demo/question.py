"""A request's body read and checked as vLLM does it. Answering is the back ends' business."""

from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from filature.demo.text import count_tokens
from filature.wire.dialect import Dialect

N_MAX: Final = 128
PROMPTS_MAX: Final = 2048
MESSAGE_TOKENS: Final = 4
"""Of the template around each message, and of what opens the answer."""
PART_TOKENS: Final = 85
"""For an image or a file, which is not looked at."""
DIMENSIONS_MAX: Final = 4096


class RefusedError(Exception):
    """An answer that is an error, in vLLM's form: ``code`` is the status, as a number."""

    def __init__(
        self, status: int, message: str, param: str | None = None, kind: str = "BadRequestError"
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.kind = kind

    def body(self, dialect: Dialect | None) -> bytes:
        if dialect is not None and dialect.is_anthropic:
            kind = "not_found_error" if self.status == 404 else "invalid_request_error"
            if self.status >= 500:
                kind = "api_error"
            error = {"type": kind, "message": self.message}
            return orjson.dumps({"type": "error", "error": error})
        fields = {
            "message": self.message,
            "type": self.kind,
            "param": self.param,
            "code": self.status,
        }
        return orjson.dumps({"error": fields})


@dataclass(slots=True)
class Tool:
    """A function that may be called; ``parameters`` is its JSON schema."""

    name: str
    parameters: Any


@dataclass(slots=True)
class Message:
    """One message of the conversation, its parts joined."""

    role: str
    text: str
    tokens: int = 0


@dataclass(slots=True)
class Question:
    """What is asked, in terms that all dialects share."""

    dialect: Dialect
    body: dict[str, Any]
    model: str = ""
    """As the client wrote it."""
    messages: list[Message] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)
    """Of completions and embeddings; elsewhere one, with all the messages."""
    prompt_tokens: list[int] = field(default_factory=list)
    n: int = 1
    stream: bool = False
    include_usage: bool = False
    continuous_usage: bool = False
    max_tokens: int | None = None
    stop: list[str] = field(default_factory=list)
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    ignore_eos: bool = False
    logprobs: int | None = None
    """Alternatives per token; None: no logprobs at all."""
    tools: list[Tool] = field(default_factory=list)
    tool_choice: str = "auto"
    """``auto``, ``none``, ``required`` or, where ``tool_is_named``, a tool's name."""
    tool_is_named: bool = False
    schema: Any = None
    """What the answer's JSON is to fit."""
    ends_with_tool_result: bool = False


def parse_json(body: bytes) -> dict[str, Any]:
    """The body's object. Raises ``RefusedError``."""
    if not body:
        raise _invalid("missing", "body", "Field required")
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise _invalid("json_invalid", f"body.{error.pos}", "JSON decode error") from None
    if not isinstance(parsed, dict):
        raise _invalid("model_attributes_type", "body", "Input should be a valid dictionary")
    return parsed


def read_question(dialect: Dialect, body: dict[str, Any], context: int) -> Question:
    """What a body asks; ``context`` is the model's, in tokens. Raises ``RefusedError``."""
    question = Question(dialect, body)
    question.stream = _boolean(body, "stream")
    if dialect is Dialect.EMBEDDINGS:
        _read_embeddings(question)
    elif dialect is Dialect.COMPLETIONS:
        _read_prompts(question, "prompt")
    elif dialect is Dialect.RESPONSES:
        _read_responses(question)
    else:
        _read_messages(question)
    _read_tools(question)
    if not question.prompt_tokens:
        tokens = sum(message.tokens for message in question.messages) + MESSAGE_TOKENS
        if question.tools:
            tokens += count_tokens(orjson.dumps(body["tools"]).decode())
        question.prompts = ["\n".join(message.text for message in question.messages)]
        question.prompt_tokens = [tokens]
    _read_sampling(question)
    _read_limits(question, context)
    return question


def read_tokenizing(body: dict[str, Any], context: int) -> Question:
    """What ``/tokenize`` is asked: one prompt's text, or a chat. Raises ``RefusedError``."""
    dialect = Dialect.CHAT if "messages" in body else Dialect.COMPLETIONS
    if dialect is Dialect.COMPLETIONS and not isinstance(body.get("prompt"), str):
        raise _invalid("string_type", "body.prompt", "Input should be a valid string")
    return read_question(dialect, body, context)


def _invalid(kind: str, where: str, message: str) -> RefusedError:
    text = f"1 validation error:\n  {{'type': '{kind}', 'loc': '{where}', 'msg': '{message}'}}"
    return RefusedError(400, text, where, "Bad Request")


def _boolean(body: dict[str, Any], name: str) -> bool:
    value = body.get(name)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise _invalid("bool_type", f"body.{name}", "Input should be a valid boolean")
    return value


def _number(body: dict[str, Any], name: str) -> float | None:
    value = body.get(name)
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    raise _invalid("float_type", f"body.{name}", "Input should be a valid number")


def _integer(body: dict[str, Any], name: str) -> int | None:
    value = _number(body, name)
    if isinstance(value, float):
        raise _invalid("int_type", f"body.{name}", "Input should be a valid integer")
    return value


def _content(content: Any) -> tuple[str, int]:
    """Text and tokens of a message's content: a string or a list of parts."""
    if isinstance(content, str):
        return content, count_tokens(content)
    texts: list[str] = []
    tokens = 0
    for part in content if isinstance(content, list) else []:
        text = part if isinstance(part, str) else None
        if isinstance(part, dict):
            text = part.get("text")
            if text is None and part.get("type") == "tool_result":
                text = _content(part.get("content"))[0]
        if isinstance(text, str):
            texts.append(text)
            tokens += count_tokens(text)
        elif isinstance(part, dict):
            tokens += PART_TOKENS
    return "".join(texts), tokens


def _add_message(question: Question, role: str, content: Any) -> None:
    text, tokens = _content(content)
    question.messages.append(Message(role, text, tokens + MESSAGE_TOKENS))


def _read_messages(question: Question) -> None:
    body = question.body
    if system := body.get("system") if question.dialect.is_anthropic else None:
        _add_message(question, "system", system)
    messages = body.get("messages")
    if messages is None:
        raise _invalid("missing", "body.messages", "Field required")
    if not isinstance(messages, list):
        raise _invalid("list_type", "body.messages", "Input should be a valid list")
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            where = f"body.messages.{index}"
            raise _invalid("model_type", where, "Input should be a message with a role")
        _add_message(question, message["role"], message.get("content"))
    if not messages:
        raise RefusedError(400, "There has to be at least one message.", "messages")
    last = messages[-1]
    parts = last.get("content")
    question.ends_with_tool_result = last["role"] == "tool" or (
        isinstance(parts, list)
        and any(isinstance(part, dict) and part.get("type") == "tool_result" for part in parts)
    )
    _read_schema(question, body.get("response_format"), "json_schema")


def _read_schema(question: Question, wanted: Any, nested: str | None) -> None:
    """``response_format`` of chat and completions, ``text.format`` of Responses."""
    if not isinstance(wanted, dict):
        return
    if wanted.get("type") == "json_object":
        question.schema = {"type": "object", "properties": {"answer": {"type": "string"}}}
    elif wanted.get("type") == "json_schema":
        holder = wanted.get(nested) if nested else wanted
        question.schema = holder.get("schema") if isinstance(holder, dict) else None


def _read_responses(question: Question) -> None:
    body = question.body
    if isinstance(instructions := body.get("instructions"), str):
        _add_message(question, "system", instructions)
    asked = body.get("input")
    if asked is None:
        raise _invalid("missing", "body.input", "Field required")
    items = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked
    if not isinstance(items, list) or not items:
        raise _invalid("list_type", "body.input", "Input should be a valid string or list")
    for index, item in enumerate(items):
        if not isinstance(item, dict):
            raise _invalid("model_type", f"body.input.{index}", "Input should be an item")
        if item.get("type") == "function_call_output":
            _add_message(question, "tool", item.get("output"))
        elif item.get("type") == "function_call":
            _add_message(question, "assistant", item.get("arguments"))
        else:
            _add_message(question, str(item.get("role", "user")), item.get("content"))
    question.ends_with_tool_result = items[-1].get("type") == "function_call_output"
    text = body.get("text")
    _read_schema(question, text.get("format") if isinstance(text, dict) else None, None)


def _read_prompts(question: Question, name: str) -> None:
    """A text, texts, tokens, or lists of tokens."""
    prompt = question.body.get(name)
    if prompt is None:
        raise _invalid("missing", f"body.{name}", "Field required")
    several = [prompt] if isinstance(prompt, str) or _is_tokens(prompt) else prompt
    if not isinstance(several, list) or not several:
        raise _invalid("list_type", f"body.{name}", "Input should be a text or a list")
    if len(several) > PROMPTS_MAX:
        raise RefusedError(400, f"At most {PROMPTS_MAX} prompts per request.", name)
    for one in several:
        if isinstance(one, str):
            question.prompts.append(one)
            question.prompt_tokens.append(max(1, count_tokens(one)))
        elif _is_tokens(one):
            question.prompts.append(" ".join(map(str, one)))
            question.prompt_tokens.append(len(one))
        else:
            raise _invalid("string_type", f"body.{name}", "Input should be texts or token ids")
    _read_schema(question, question.body.get("response_format"), "json_schema")


def _is_tokens(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(token) is int for token in value)


def _read_embeddings(question: Question) -> None:
    _read_prompts(question, "input")
    dimensions = _integer(question.body, "dimensions")
    if dimensions is not None and not 1 <= dimensions <= DIMENSIONS_MAX:
        raise RefusedError(400, f"dimensions must be in 1..{DIMENSIONS_MAX}", "dimensions")
    if question.body.get("encoding_format", "float") not in ("float", "base64"):
        raise RefusedError(400, "encoding_format must be float or base64", "encoding_format")


def _read_tools(question: Question) -> None:
    """Tools and the choice among them, in each dialect's own form."""
    tools = question.body.get("tools")
    for entry in tools if isinstance(tools, list) else []:
        if not isinstance(entry, dict):
            raise _invalid("model_type", "body.tools", "Input should be a tool")
        holder = entry.get("function") if question.dialect is Dialect.CHAT else entry
        name = holder.get("name") if isinstance(holder, dict) else None
        if not isinstance(holder, dict) or not isinstance(name, str):
            raise _invalid("missing", "body.tools", "Field required: the name of the function")
        parameters = holder.get("parameters", holder.get("input_schema"))
        question.tools.append(Tool(name, parameters))
    choice = question.body.get("tool_choice")
    if isinstance(choice, dict):
        holder = choice.get("function") if question.dialect is Dialect.CHAT else choice
        kind, name = choice.get("type"), holder.get("name") if isinstance(holder, dict) else None
        if isinstance(name, str):
            if all(tool.name != name for tool in question.tools):
                raise RefusedError(400, f"tool_choice names {name!r}, which is no tool")
            question.tool_choice, question.tool_is_named = name, True
        else:
            question.tool_choice = "required" if kind == "any" else str(kind or "auto")
    elif isinstance(choice, str):
        question.tool_choice = choice
    if question.tool_choice == "required" and not question.tools:
        raise RefusedError(400, "tool_choice is required, but there are no tools", "tool_choice")


def _read_sampling(question: Question) -> None:
    body = question.body
    question.temperature = _number(body, "temperature")
    if question.temperature is not None and question.temperature < 0:
        raise _out_of_range("temperature", "must be non-negative", question.temperature)
    question.top_p = _number(body, "top_p")
    question.seed = _integer(body, "seed")
    question.ignore_eos = _boolean(body, "ignore_eos")
    stop = body.get("stop_sequences" if question.dialect is Dialect.MESSAGES else "stop")
    stops = [stop] if isinstance(stop, str) else stop if isinstance(stop, list) else []
    question.stop = [text for text in stops if isinstance(text, str) and text]
    if question.dialect.has_choices:
        n = _integer(body, "n")
        question.n = 1 if n is None else n
        if not 1 <= question.n <= N_MAX:
            raise _out_of_range("n", f"must be in 1..{N_MAX}", question.n)
        logprobs = body.get("logprobs")
        if question.dialect is Dialect.CHAT:
            question.logprobs = (_integer(body, "top_logprobs") or 0) if logprobs is True else None
        elif logprobs is not None:
            question.logprobs = _integer(body, "logprobs")
        _read_stream_options(question)


def _read_stream_options(question: Question) -> None:
    options = question.body.get("stream_options")
    if options is None:
        return
    if not question.stream:
        message = "stream_options can only be used with `stream=True`."
        raise RefusedError(400, message, "stream_options")
    if isinstance(options, dict):
        question.include_usage = options.get("include_usage") is True
        question.continuous_usage = (
            question.include_usage and options.get("continuous_usage_stats") is True
        )


def _read_limits(question: Question, context: int) -> None:
    body = question.body
    names = {
        Dialect.CHAT: ("max_completion_tokens", "max_tokens"),
        Dialect.COMPLETIONS: ("max_tokens",),
        Dialect.RESPONSES: ("max_output_tokens",),
        Dialect.MESSAGES: ("max_tokens",),
    }.get(question.dialect, ())
    for name in reversed(names):
        value = _integer(body, name)
        if value is None:
            continue
        if value < 1:
            raise _out_of_range(name, "must be at least 1", value)
        if value > context:
            raise _out_of_range(name, f"cannot be greater than max_model_len={context}", value)
        question.max_tokens = value
    if question.dialect is Dialect.MESSAGES and question.max_tokens is None:
        raise _invalid("missing", "body.max_tokens", "Field required")
    if question.dialect is Dialect.COMPLETIONS and question.max_tokens is None:
        question.max_tokens = 16


def check_context(prompt_tokens: int, context: int) -> None:
    """Refuses a prompt that leaves no room for an answer. Raises ``RefusedError``."""
    if prompt_tokens >= context:
        message = (
            f"This model's maximum context length is {context} tokens, but the prompt alone has "
            f"{prompt_tokens} input tokens. Please shorten it. "
            f"(parameter=input_tokens, value={prompt_tokens})"
        )
        raise RefusedError(400, message, "input_tokens")


def _out_of_range(name: str, must: str, value: object) -> RefusedError:
    return RefusedError(400, f"{name} {must}, got {value}. (parameter={name}, value={value})", name)
