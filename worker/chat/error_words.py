"""Maps words in error messages to ErrorCodes, in English and Chinese, lower case. Used by `chat.error_meanings`."""

import re
from typing import Final

from worker.core.failure import ErrorCode

_QUOTA_WORDS: Final = (
    r"insufficient (?:account |user |token |available )?(?:balance|credit|fund|quota)"
    r"|(?:balance|credits?|quota|funds?)(?: limit)? (?:is |are |has been |have been )?"
    r"(?:insufficient|depleted|exhausted|used up|too low|not enough)"
    r"|(?:not enough|no (?:remaining|more|available)|run out of|out of) (?:credit|balance|quota|funds)"
    r"|(?:doesn't|does not|don't|do not) have (?:any|enough) (?:credit|balance|quota|funds)"
    r"|(?:exceeded|reached|used|hit|over) (?:all )?(?:your|the|its|my) (?:\w+ ){0,3}"
    r"(?:quota|credits?|budget|spend(?:ing)? limit|usage limits?|free allowance)"
    r"|(?:weekly|monthly|weekly/monthly|daily|session) (?:usage |request |token |spend(?:ing)? )?(?:limit|quota)"
    r"|(?:calls|requests|tokens) ?(?:/|per|a) ?month"
    r"|spend(?:ing)? limit|budget has been exceeded|exceeded budget|crossed budget|over budget|quota exceeded"
    r"|(?:credit|credits|credit limit|usage limit|plan limit) (?:exceeded|reached)"
    r"|billing (?:details|hard limit|account|is not|not active|not enabled)|check your (?:plan and )?billing"
    r"|account (?:\S+ )?(?:is |has been |was )?(?:not active|suspended|overdue|in arrears)|good standing"
    r"|payment (?:required|method)|past invoices|overdue|arrear|top up|recharge"
    r"|余额不足|额度不足|额度已(?:用尽|用完|耗尽)|欠费|充值|无可用资源包|配额(?:不足|已用完|已耗尽)"
)
_KEY_WORDS: Final = (
    r"(?:invalid|incorrect|wrong|expired|missing|no|unknown|revoked|disabled|bad) (?:\w+ )?api[ -_]?key"
    r"|api[ -_]?key (?:\S+ )?(?:is |was |has |been |provided )*"
    r"(?:not valid|invalid|incorrect|expired|missing|not found|revoked|disabled|suspended|blocked|reported as leaked)"
    r"|(?:invalid|expired|no|missing) (?:auth\w*|access|bearer) (?:token|credentials?|header)"
    r"|authentication (?:fail|error|required)|no auth credentials|login fail"
    r"|account (?:\S+ )?(?:is |has been |was )?(?:deactivated|disabled|locked)"
    r"|令牌(?:已过期|无效|不可用)|无效的令牌|身份验证失败|鉴权失败|密钥无效|api ?key ?(?:无效|错误|已过期)"
)
_CONTEXT_WORDS: Final = (
    r"context[ _](?:length|window|size)|maximum context|max_seq_len|max_model_len"
    r"|(?:prompt|input|message|request)s? (?:is |are )?too long|reduce the length"
    r"|(?:maximum|max) (?:input|prompt) (?:tokens?|length)|input token count"
    r"|exceeds? the maximum number of (?:input )?tokens"
    r"|inputs?`? tokens \+ `?(?:max_new_tokens|max_tokens)|range of input length|too many (?:input |prompt )?tokens"
    r"|上下文(?:长度|过长)|超(?:过|出).{0,10}(?:长度|上下文)|输入过长"
)
_CONTENT_WORDS: Final = (
    r"content (?:management |usage |safety )?(?:policy|filter)|usage polic(?:y|ies)|safety (?:system|filter|polic)"
    r"|inappropriate content|sensitive (?:content|word|information)|input was flagged|flagged (?:by|as)|moderation"
    r"|data ?inspection|prohibited content|content exists risk|considered high risk|usage guidelines"
    r"|敏感|违规|不安全内容"
)
_MODEL_WORDS: Final = (
    r"model (?:named |id )?[`'\"]*[^\s`'\"]+[`'\"]* (?:was |is |does )?(?:not found|not exist|not supported)"
    r"|(?:requested|specified|this|the)? ?model (?:is |was |does )?(?:not found|not exist|not supported)"
    r"|(?:no such|unknown|invalid|unsupported) model\b|no endpoints found for|not a valid model"
    r"|try pulling it|模型不存在"
)
_CHANNEL_WORDS: Final = r"no available (?:channel|provider|deployment)|no deployments available|无可用渠道"
_RATE_WORDS: Final = (
    r"rate[ -_]?limit|too many (?:concurrent )?(?:requests|tokens)|too many calls|throttl|slow down"
    r"|(?:requests|tokens) per (?:minute|second|min|day)|请求(?:过于|太)频繁|访问量过大|速率限制|频率限制|限流|并发"
)
_BUSY_WORDS: Final = (
    r"overloaded|(?:currently |still )loading|temporarily unavailable|at capacity|capacity exceeded|server is busy"
    r"|try again later|服务器?繁忙|负载已饱和|稍后(?:再|重)试"
)
# The patterns in the order of their use, each with the HTTP statuses it applies to (0: an error under 2xx).
_WORDS: Final = tuple(
    (code, statuses, re.compile(pattern).search)
    for code, statuses, pattern in (
        (ErrorCode.unauthorized, {0, 400, 401, 403, 500, 502, 503}, _KEY_WORDS),
        (ErrorCode.context_too_long, {0, 400, 403, 413, 422, 500}, _CONTEXT_WORDS),
        (ErrorCode.quota_exhausted, {0, 400, 401, 403, 412, 429, 500, 502, 503}, _QUOTA_WORDS),
        (ErrorCode.content_refused, {0, 400, 403, 422, 451, 500}, _CONTENT_WORDS),
        (ErrorCode.rate_limited, {0, 400, 403, 429, 500}, _RATE_WORDS),
        (ErrorCode.model_not_found, {0, 400, 403, 404, 422}, _MODEL_WORDS),
        (ErrorCode.model_not_found, {0, 404, 500, 503}, _CHANNEL_WORDS),
        (ErrorCode.overloaded, {0, 400, 403, 404, 500}, _BUSY_WORDS),
    )
)


def code_by_words(text: str, status: int) -> ErrorCode | None:
    """Return the code for the text of an error under an HTTP status (0: under 2xx); None if no pattern matches."""
    return next((code for code, statuses, matches in _WORDS if status in statuses and matches(text)), None)
