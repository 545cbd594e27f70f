"""Logging from workflow bodies: a body is replayed after every restart, and its log lines should appear once."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any, TypeAlias

from reflow._core.context import current_run, is_replaying

__all__ = ["get_logger"]

_Adapter: TypeAlias = "logging.LoggerAdapter[logging.Logger]"


class _RunLogger(logging.LoggerAdapter[logging.Logger]):
    """Silent while replaying; each record has `run_id` and `workflow`, None outside a workflow body."""

    def isEnabledFor(self, level: int) -> bool:
        return not is_replaying() and super().isEnabledFor(level)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        run = current_run()
        named = {"run_id": run and run.run_id, "workflow": run and run.workflow}
        return msg, {**kwargs, "extra": {**named, **(kwargs.get("extra") or {})}}


def get_logger(name: str) -> _Adapter:
    """The standard library's logger of this name, for use in workflow bodies: it is silent while a body is only brought
    back to where it was, so that each line appears once. (After a crash, what was logged since the last stored outcome
    appears again.)

    Records carry `run_id` and `workflow`, for formats such as `"%(run_id)s %(message)s"`.
    """
    return _RunLogger(logging.getLogger(name), {})
