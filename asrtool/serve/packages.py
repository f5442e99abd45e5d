"""The packages of the extra `serve`, which only the server needs."""

from importlib.util import find_spec

from asrtool.errors import UserError

PACKAGES = {
    "starlette": "starlette",
    "uvicorn": "uvicorn",
    "websockets": "websockets",
    "python_multipart": "python-multipart",
    "prometheus_client": "prometheus-client",
}


def require_packages() -> None:
    """Raises UserError with the packages of the extra that are not installed."""
    missing = [package for module, package in PACKAGES.items() if find_spec(module) is None]
    if missing:
        raise UserError(f"asrtool serve needs {', '.join(missing)}: pip install 'asrtool[serve]'")
