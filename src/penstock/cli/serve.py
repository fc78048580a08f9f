"""`penstock serve`"""

from __future__ import annotations

from penstock.settings import Settings, command


@command("model", "engine", "server", "log")
def serve(settings: Settings) -> None:
    """Serve a model behind an OpenAI-style API.

    Without arguments: the embedded demo model on http://127.0.0.1:8000.
    """
    for line in settings.changes():
        print(line)
    from penstock.server.app import serve

    serve(settings.config)
