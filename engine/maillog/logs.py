"""The mail log that the settings ask for."""

from pathlib import Path

from engine.base.clock import Clock
from engine.maillog.log import MailLog
from engine.maillog.sinks import LARGEST, File, Journal, Sink, Stream, Syslog
from engine.settings.settings import Settings

FILE = "mail.log"  # in the spool, where standard error is a console's


def mail_log(settings: Settings, clock: Clock, *, is_screen: bool) -> MailLog | None:
    """The mail log, None for none. `is_screen`: standard error is one that somebody draws on."""
    wanted = settings.log
    if wanted.mail == "none":
        return None
    return MailLog(_sink(settings, is_screen=is_screen), clock, as_json=wanted.format == "json")


def _sink(settings: Settings, *, is_screen: bool) -> Sink:
    match settings.log.mail:
        case "stderr" if is_screen:
            return File(settings.spool / FILE, settings.hostname, largest=LARGEST)
        case "stderr":
            return Stream(settings.hostname)
        case "journal":
            return Journal()
        case "syslog":
            return Syslog()
        case path:
            return File(Path(path), settings.hostname)
