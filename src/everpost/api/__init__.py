"""The HTTP door: the native API in Resend's shape, its documentation, health, metrics.

Promises: every answer is JSON (but for /docs and /metrics) with the status and name of COMPAT §5.3;
a success of POST /emails is sent after intake said that the mail is durable; no answer holds a
secret or a stack trace; a request cannot take more memory or time than the limits allow.

Must not live here: rules on mail (intake), on who may do what (access), on settings (catalog), SQL.
"""

from everpost.access import OPERATOR
from everpost.api.admission import Admission, AdmissionLimits
from everpost.api.answers import Answer, encode
from everpost.api.application import Application
from everpost.api.asgi import App
from everpost.api.docs import page
from everpost.api.openapi import document
from everpost.api.protocol import HttpLimits
from everpost.api.routes import ADMIN, NATIVE
from everpost.api.server import HttpServer
from everpost.api.services import ApiLimits, Records, SandboxMail, Services

__all__ = [
    "MAIL",
    "Admission",
    "AdmissionLimits",
    "ApiLimits",
    "App",
    "HttpLimits",
    "HttpServer",
    "Records",
    "SandboxMail",
    "Services",
    "build_admin",
    "build_api",
    "build_operator",
    "openapi_document",
]


MAIL = frozenset(route.path.encode() for route in NATIVE if route.mail)
"""Paths to which emails are posted: where `HttpServer` asks admission."""


def openapi_document(public_url: str) -> dict[str, object]:
    """The native API's OpenAPI 3.1 document."""
    return document(NATIVE, public_url=public_url)


def build_api(services: Services) -> App:
    """The public listener: the native API, /openapi.json, /docs, /health."""
    shown = document(NATIVE, public_url=services.public_url)
    pages = {b"/openapi.json": Answer(200, encode(shown)), b"/docs": page(shown)}
    return Application(services, NATIVE, pages=pages)


def build_admin(services: Services) -> App:
    """The admin listener: metrics and health in detail, nothing else."""
    return Application(services, ADMIN)


def build_operator(services: Services) -> App:
    """The unix socket for commands on this machine: the native API without a key. Whoever can open
    the socket is the operator; its file's mode decides who that is."""
    return Application(services, NATIVE, credential=OPERATOR)
