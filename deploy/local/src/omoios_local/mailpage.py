"""The development page that shows what the SMTP sink kept, at a port of the sink's own process.

It asks for a key, because mails hold links that open accounts and every sandbox on this machine reaches loopback.
`make up` prints the address with the key. Production has neither the sink nor this page.
"""

from __future__ import annotations

import dataclasses
import hmac
from html import escape

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from omoios_local.mailbox import KeptMail, Mailbox

COOKIE = "omoios_mail_key"
# A mail is shown in a frame without scripts; its links open in a tab of their own.
_FRAME = "allow-popups allow-popups-to-escape-sandbox"
_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-src 'self'; base-uri 'none'",
}
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#18181b}"
    "table{width:100%;border-collapse:collapse}td,th{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #ddd}"
    "pre{white-space:pre-wrap;background:#f4f4f5;padding:1rem}iframe{width:100%;height:30rem;border:1px solid #ddd}"
)


def application(mailbox: Mailbox, key: str) -> Starlette:
    """`/` lists the mails, `/mails/<name>` shows one, `/mails.json?to=` is for programs."""

    def admit(request: Request) -> None:
        given = request.cookies.get(COOKIE) or request.headers.get("authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode(), key.encode()):
            raise HTTPException(401, "Open this page by the address that `make up` printed.")

    def index(request: Request) -> Response:
        if "key" in request.query_params:
            answer = RedirectResponse("/", 303, headers=_HEADERS)
            answer.set_cookie(COOKIE, request.query_params["key"], httponly=True, samesite="strict")
            return answer
        admit(request)
        rows = "".join(_row(mail) for mail in mailbox.mails())
        table = (
            f"<table><tr><th>date</th><th>to</th><th>subject</th></tr>{rows}</table>" if rows else "<p>None yet.</p>"
        )
        return _page("Mails of this stack", table)

    def one(request: Request) -> Response:
        admit(request)
        mail = _found(mailbox, request)
        name = escape(mail.name)
        links = "".join(f'<li><a href="{escape(link)}" rel="noreferrer">{escape(link)}</a></li>' for link in mail.links)
        head = f"<p>From {escape(mail.sender)}<br>To {escape(mail.to)}<br>{escape(mail.date)}</p>"
        frame = f'<iframe src="/mails/{name}/html" sandbox="{_FRAME}"></iframe>' if mail.html else ""
        return _page(
            mail.subject, f'<p><a href="/">all</a></p>{head}<ul>{links}</ul><pre>{escape(mail.text)}</pre>{frame}'
        )

    def html(request: Request) -> Response:
        admit(request)
        policy = f"sandbox {_FRAME}; default-src 'none'; style-src 'unsafe-inline'"
        return HTMLResponse(_found(mailbox, request).html, headers=_HEADERS | {"Content-Security-Policy": policy})

    def as_json(request: Request) -> Response:
        admit(request)
        mails = mailbox.mails(request.query_params.get("to"))
        return JSONResponse([dataclasses.asdict(mail) | {"links": mail.links} for mail in mails], headers=_HEADERS)

    return Starlette(
        routes=[
            Route("/", index),
            Route("/mails.json", as_json),
            Route("/mails/{name}", one),
            Route("/mails/{name}/html", html),
        ]
    )


def _found(mailbox: Mailbox, request: Request) -> KeptMail:
    mail = mailbox.mail(request.path_params["name"])
    if mail is None:
        raise HTTPException(404, "There is no such mail.")
    return mail


def _row(mail: KeptMail) -> str:
    link = f'<a href="/mails/{escape(mail.name)}">{escape(mail.subject)}</a>'
    return f"<tr><td>{escape(mail.date)}</td><td>{escape(mail.to)}</td><td>{link}</td></tr>"


def _page(title: str, body: str) -> HTMLResponse:
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style>'
    return HTMLResponse(f"{head}<h1>{escape(title)}</h1>{body}</html>", headers=_HEADERS)
