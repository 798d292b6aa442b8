"""One error tree, mapped once to the OpenAI error envelope."""

from __future__ import annotations

from typing import Any


class GatewayError(Exception):
    """Ends a request with an OpenAI error envelope. The message is for the client: no internals in it."""

    status = 500
    type = "server_error"
    code: str | None = None

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        if code is not None:
            self.code = code
        self.headers = headers or {}

    def envelope(self) -> dict[str, Any]:
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


class InvalidRequest(GatewayError):
    status = 400
    type = "invalid_request_error"


class Unauthenticated(GatewayError):
    status = 401
    type = "authentication_error"
    code = "invalid_api_key"


class Forbidden(GatewayError):
    status = 403
    type = "permission_error"


class NotFound(GatewayError):
    status = 404
    type = "invalid_request_error"


class MethodNotAllowed(GatewayError):
    status = 405
    type = "invalid_request_error"
    code = "method_not_allowed"


class Conflict(GatewayError):
    """What is asked for does not go with what there is now."""

    status = 409
    type = "invalid_request_error"


class RequestTimeout(GatewayError):
    """The client sent its request too slowly."""

    status = 408
    type = "timeout_error"
    code = "request_timeout"


class BodyTooLarge(GatewayError):
    status = 413
    type = "invalid_request_error"
    code = "request_too_large"


class RateLimited(GatewayError):
    """Limits, quotas and overload; carries a computed ``retry-after``."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


class EngineUnavailable(GatewayError):
    """The engine cannot answer now: starting, draining or dead."""

    status = 503
    type = "server_error"
    code = "engine_unavailable"


class EngineWaking(EngineUnavailable):
    """It is loaded again, and that takes longer than a request waits for it. No 503: the proxy would send that to a
    sibling, which would be woken as well."""

    status = 504
    code = "engine_waking"


class DeadlineExceeded(GatewayError):
    status = 504
    type = "timeout_error"
    code = "deadline_exceeded"


class NeverBegun(DeadlineExceeded):
    """No engine had begun on the request by then: later there may be room."""

    code = "deadline_before_run"

    def __init__(self) -> None:
        super().__init__("The deadline passed while the request waited for the engine.")


class EngineRefused(GatewayError):
    """The engine answered with an error of its own, already an OpenAI envelope; relayed with its status."""

    def __init__(self, status: int, envelope: dict[str, Any]) -> None:
        error = envelope.get("error", {})
        super().__init__(str(error.get("message", "The engine refused the request.")), param=error.get("param"))
        self.status = status
        self.type = str(error.get("type") or "invalid_request_error")
        code = error.get("code")
        self.code = None if code is None or isinstance(code, int) else str(code)
