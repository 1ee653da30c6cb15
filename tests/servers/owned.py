"""What every server of the tests can do: be killed, come back on its port, and fall silent."""

from __future__ import annotations

from tests.servers.process import OwnedProcess


class OwnedServer:
    """A server that a test owns. It is started anew on the same port, with the data that it keeps.

    The calls block: see `OwnedProcess`.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._process: OwnedProcess | None = None

    def _launch(self) -> OwnedProcess:
        raise NotImplementedError

    def _answers(self) -> bool:
        raise NotImplementedError

    @property
    def process(self) -> OwnedProcess:
        """The running server.

        Raises:
            RuntimeError: it is stopped.
        """
        if self._process is None:
            raise RuntimeError(f"this {self._title} is stopped: call start() first")
        return self._process

    def start(self) -> None:
        """Start it and wait until it answers. Does nothing when it runs."""
        if self._process is None:
            self._process = self._launch()
            self._process.wait_until(self._answers, timeout=60)

    def stop(self) -> None:
        """SIGTERM, and wait for its end. Safe to call twice."""
        if self._process is not None:
            self._process.terminate(timeout=30)
            self._process = None

    def kill(self) -> None:
        """SIGKILL: clients see their connections break."""
        self.process.kill()
        self._process = None

    def restart(self) -> None:
        """SIGKILL where it runs, then start on the same port."""
        if self._process is not None:
            self.kill()
        self.start()

    def pause(self) -> None:
        """SIGSTOP: connections stay open and nothing answers, as when the network swallows everything."""
        self.process.pause()

    def resume(self) -> None:
        """SIGCONT: all that was sent meanwhile is answered now."""
        self.process.resume()
