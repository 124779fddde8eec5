"""Whatever a client asks: it is refused by an error of ours, or what an engine gets is JSON that says the same."""

import json
from typing import Final

from filature.errors import FilatureError
from filature.request.boundary import check_boundary
from filature.request.limits import RequestLimits
from filature.request.parse import parse_request
from filature.request.quote import PromptRules, prompt_bound
from filature.request.rewrite import body_for_engine
from filature.wire.dialect import Dialect

_DIALECTS: Final = list(Dialect)
_LIMITS: Final = (RequestLimits(), RequestLimits(strict=True), RequestLimits(max_tokens_max=100))
_NETWORK: Final = 0x80
_EDITED: Final = frozenset(
    {"model", "stream_options", "max_tokens", "max_completion_tokens", "max_output_tokens"}
    | {"n_predict", "thinking"}
)
_TAKEN_OUT: Final = frozenset({"max_coefficient", "timeout", "request_guid", "enable_debug"})


def check(data: bytes) -> None:
    """The first two bytes choose the dialect, the limits and whose engine it is; the rest is the body."""
    if len(data) < 2:
        return
    dialect = _DIALECTS[data[0] % len(_DIALECTS)]
    limits = _LIMITS[data[1] % len(_LIMITS)]
    for_network = bool(data[1] & _NETWORK)
    body = data[2:]
    try:
        request = parse_request(dialect, body, limits)
        if for_network:
            check_boundary(request)
    except FilatureError as refused:
        if refused.status not in range(400, 500):
            raise
        return
    assert prompt_bound(request, PromptRules(), 4096) > 0
    sent = body_for_engine(
        request,
        model="other",
        include_usage=True,
        continuous_usage=False,
        max_tokens=7,
        both_limits=True,
        for_network=for_network,
    )
    before, after = json.loads(body), json.loads(sent)
    assert after["model"] == "other"
    assert not after.keys() - before.keys() - _EDITED
    if not for_network:
        for name in before.keys() - _EDITED - _TAKEN_OUT:
            assert repr(after[name]) == repr(before[name]), name
