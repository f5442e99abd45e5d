"""Log lines as JSON, one object a line, for programs that collect logs."""

import json
import logging
from datetime import UTC, datetime
from typing import Any

from asrtool.logs import LineFormatter

OTHERS = ("asyncio", "python_multipart", "uvicorn", "websockets")  # loggers of packages


class JsonFormatter(logging.Formatter):
    """Formats a record as {"time", "level", "logger", "message", ...}; `extra={"fields": {...}}` adds fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns one line of ASCII."""
        tree: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            tree["traceback"] = self.formatException(record.exc_info)
        return json.dumps(tree, default=str)


def set_log_format(name: str) -> None:
    """Makes the handlers of asrtool's log write "text" or "json", and gives them the errors of OTHERS, too."""
    handlers = logging.getLogger("asrtool").handlers
    for handler in handlers:
        handler.setFormatter(JsonFormatter() if name == "json" else LineFormatter())
    for other in map(logging.getLogger, OTHERS):
        other.handlers = list(handlers)
        other.propagate = False
        other.setLevel(logging.ERROR)  # they warn of every malformed request
