"""The engine: builds, starts, drains and stops the parts."""

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path

from dns.asyncresolver import Resolver

from engine.base.clock import Clock, FollowingClock, SystemClock
from engine.base.lookout import Lookout
from engine.base.supervision import Supervision, within
from engine.base.text import clean
from engine.control.feed import EventLog
from engine.control.relay import Relay
from engine.control.server import ControlServer
from engine.delivery.attempt import AttemptManager
from engine.delivery.explain import Explainer
from engine.delivery.parts import Parts
from engine.delivery.retry import RetryPlan
from engine.delivery.routes import Router
from engine.delivery.smarthost import SmartHost
from engine.delivery.suppressing import suppressed_for
from engine.delivery.way_out import Watched
from engine.dkim.keys import KeyProblem
from engine.dkim.signature import parts_of
from engine.dkim.signer import Signer
from engine.dns.lookups import Lookups, resolver_for
from engine.dns.mx import MXCalculator
from engine.intake.drop.folder import DropIntake
from engine.intake.errors import IntakeError
from engine.intake.floor import DiskFloor
from engine.intake.http.counter import Counter
from engine.intake.http.server import HttpIntake
from engine.intake.preparation import Preparation
from engine.intake.signing import signed
from engine.intake.smtp.listener import SmtpIntake
from engine.intake.suppressed import Refusing
from engine.login.logins import logins
from engine.maillog.logs import mail_log
from engine.model.event import Event
from engine.model.node import News, Said
from engine.queue.contract import Queue
from engine.queue.errors import QueueError
from engine.queue.spool import Spool, SpoolError, SpoolOwned
from engine.queue.sqlite.filesystems import unsafe
from engine.queue.sqlite.store import SqliteQueue
from engine.settings import descriptors
from engine.settings.ourselves import Ourselves, listening_by
from engine.settings.settings import Listen, Settings
from engine.smtpclient.dialler import Dialler, TcpDialler
from engine.smtpclient.probe import Prober
from engine.tls.policy import tls_policy
from engine.tls.policy_files import HTTPS

__all__ = ["CannotStart", "Engine", "SpoolOwned"]

log = logging.getLogger(__name__)

DRAIN_SECONDS = 10.0  # how long relayers may take to end their message when the engine stops
INTAKE_SECONDS = 5.0  # how long senders may take to end their message
# How long the steps of a stop may take beyond that, so that it ends whatever has died: a few seconds each, and more for
# what writes down.
STEP_SECONDS = 5.0
WRITE_SECONDS = 20.0
# Until what another node has taken in is looked at: it sees to that itself as far as it can, and there may be much.
HEARD_SECONDS = 0.25
LOOK_SECONDS = 10.0  # between looks whether the doors are still there
UNSEEN = 30.0  # seconds after which health tells of a look at keys, passwords and users that does not end
DNS_TIMEOUT = 3.0  # seconds for one question to one name server
DNS_LIFETIME = 10.0  # seconds for an answer, whoever gives it


class CannotStart(Exception):
    """Something the engine needs is not to be had; the text names it and says why."""


class Engine:
    """The whole relay on one event loop. `start` raises SpoolOwned and CannotStart; then nothing is left open.

    Clock, dialler, the source of chance and the port of policy servers may be passed in by tests. `is_screen`: nothing
    may be written to standard error, which is a console's.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Clock | None = None,
        dialler: Dialler | None = None,
        draw: random.Random | None = None,
        https_port: int = HTTPS,
        is_screen: bool = True,
    ) -> None:
        self._settings = settings
        self._secrets = Lookout[tuple[str, ...]](self._noted, (), "look at secrets")
        self._clock = clock or (FollowingClock() if settings.queue.store else SystemClock())
        self._exit = AsyncExitStack()
        self._control: ControlServer | None = None
        self._doors = ""
        self._recording: set[asyncio.Task[None]] = set()
        self._drain = DRAIN_SECONDS
        self._heard: asyncio.TimerHandle | None = None
        self._shortage = ""  # of descriptors
        self.supervision = Supervision(self._died)
        control = settings.control
        spool = self._spool = Spool(settings.spool, group=control.group, view_group=control.view_group)
        self.events = EventLog(self._clock)
        retries = RetryPlan(settings.retry, draw)
        self.queue = _queue(settings, spool.path, self._clock, retries)
        self._mail_log = mail_log(settings, self._clock, is_screen=is_screen)
        self.queue.on_events = self._tell
        self.queue.on_news = self._hear
        self.queue.nodes.report = self._said
        resolver = resolver_for(
            [str(each) for each in settings.dns.nameservers],
            timeout=DNS_TIMEOUT,
            lifetime=DNS_LIFETIME,
            validating=settings.dns.validating,
        )
        self.mx = _mx(settings, resolver, self._clock, self.queue, draw)
        lookups = Lookups(resolver)
        self.tls = tls_policy(settings, lookups, self.queue.standing, self._clock, https_port=https_port)
        self.signer = Signer(settings.dkim, settings.dkim_signing.unsigned, self._clock)
        self._keys = Lookout[tuple[str, ...]](self.signer.look, (), "look at DKIM keys")
        attempts = _attempts(settings, self.queue, retries, self._clock, self.signer)
        router = self._router = Router(
            self.mx,
            delivery=settings.delivery,
            tls=self.tls,
            routes=settings.route,
            logins=logins(settings, lookups, self._clock, _password),
            standing=self.queue.standing,
            ourselves=_ourselves(settings, self._listening),
            clock=self._clock,
            draw=draw,
        )
        parts = Parts(
            queue=self.queue,
            mx=self.mx,
            router=router,
            attempts=attempts,
            dialler=dialler or TcpDialler(),
            clock=self._clock,
            hostname=settings.hostname,
            delivery=settings.delivery,
        )
        self.smarthost = SmartHost(parts, retries, limits=settings.limit)
        self.explainer = Explainer(self.queue, self.mx, router, self.smarthost, self._clock)
        probing = Watched(parts.dialler, parts.way_out, self._clock)
        self.prober = Prober(router, probing, self._clock, hostname=settings.hostname)
        self.floor = DiskFloor(spool.path, settings.intake.min_free, lambda: self.queue.spare)
        arrivals, queued = self.queue.arrivals, self.smarthost.wake
        on_refusal = self._mail_log.refused if self._mail_log is not None else lambda _: None
        preparation = Preparation.by(settings, partial(signed, signer=self.signer))
        refusing = Refusing(self.queue.suppression, settings, self._clock)
        self.smtp = SmtpIntake(
            arrivals,
            settings,
            self._clock,
            queued=queued,
            on_refusal=on_refusal,
            floor=self.floor,
            folder=spool.path,
            preparation=preparation,
            refusing=refusing,
        )
        self.counter = Counter(arrivals, self.smtp.reception)
        self.http = HttpIntake(self.counter, settings)
        self.drop = DropIntake(
            arrivals,
            spool.drop,
            settings,
            self._clock,
            self.floor,
            self.supervision,
            queued=queued,
            on_refusal=on_refusal,
            preparation=preparation,
            refusing=refusing,
        )

    @property
    def trouble(self) -> str:
        """Why the engine is not well, or ""."""
        intake = (
            self.floor.why_not() or self.signer.trouble or self.drop.trouble or self.smtp.trouble or self.http.trouble
        )
        ours = self.queue.broken or self.queue.trouble or self.supervision.trouble or self._doors
        return ours or self.smarthost.trouble or self.smarthost.pause.trouble or intake

    @property
    def notes(self) -> tuple[str, ...]:
        """What is no trouble, and should be known: of the settings, as of the last look, and of bounds reached."""
        control = self._control.notes if self._control is not None else ()
        refused = self._router.ipv6_refusals.notes
        sending = (*self.smarthost.notes, *self.smarthost.pause.notes, *self.mx.notes, *refused)
        unwritten = self._mail_log.trouble if self._mail_log is not None else ""
        here = filter(None, (self._shortage, self._unseen, unwritten, *self._secrets.seen))
        return (*here, *self.smtp.notes, *self.drop.notes, *sending, *control)

    def _noted(self) -> tuple[str, ...]:
        """Look at what the settings name, in a thread of its own: give what should be known of it."""
        self.smtp.look()
        self.http.look()
        return self._settings.notes

    @property
    def _unseen(self) -> str:
        """That the look at what the settings name hangs, or ""."""
        seconds = max(self._secrets.seconds, self._keys.seconds)
        if not seconds or seconds < UNSEEN:
            return ""
        what = "the keys, passwords and users that the settings name cannot be looked at"
        return f"{what}: for {seconds:.0f} s their file system has not answered"

    async def start(self) -> None:
        """Take the spool, recover what was interrupted, open the doors; the one for new mail last."""
        try:
            await self._start()
        except SpoolOwned:
            raise
        except (SpoolError, QueueError, IntakeError, KeyProblem, OSError) as error:
            raise CannotStart(str(error)) from error
        node = f", node {self.queue.nodes.name} of those that share its queue" if self.queue.nodes.name else ""
        log.info("relaying as %s from %s%s", self._settings.hostname, self._spool.path, node)
        for note in self._secrets.seen:
            log.info("%s", note)
        if self._shortage:
            log.warning("%s", self._shortage)

    async def _start(self) -> None:
        needed = descriptors.needed(self._settings)
        self._shortage = descriptors.note(descriptors.raise_to(needed), needed)
        if problems := await asyncio.to_thread(self.signer.look):
            raise KeyProblem("; ".join(problems))
        async with AsyncExitStack() as opening:
            opening.enter_context(self._spool)
            if self._mail_log is not None:
                self._mail_log.start()
                opening.callback(self._mail_log.close)
            interrupted = await self.queue.open()
            opening.push_async_callback(within, WRITE_SECONDS, "the queue", self.queue.close)
            opening.push_async_callback(within, STEP_SECONDS, "the TLS policies", self.tls.close)
            self._heed_drain()
            await self.mx.load()
            started = self._clock.now()
            text = f"{interrupted} interrupted attempts put back" if interrupted else ""
            await self.queue.arrivals.record(Event(at=started, kind="started", text=text))
            doors = self._settings.control
            control = self._control = ControlServer(
                self._spool.control_socket, self._relay(started), group=doors.group, view_group=doors.view_group
            )
            await control.start()
            opening.push_async_callback(within, STEP_SECONDS, "the control server", control.stop)
            self.supervision.keep("the smart host", self.smarthost.run)
            opening.push_async_callback(within, WRITE_SECONDS + 3 * self._drain, "the smart host", self._stop_sending)
            if self._settings.intake.drop.enabled:
                self._spool.look_at_drop()
                await self.drop.start()
                opening.push_async_callback(within, WRITE_SECONDS, "the drop folder", self.drop.stop)
            await self.smtp.start()
            opening.push_async_callback(within, WRITE_SECONDS, "SMTP", partial(self.smtp.stop, INTAKE_SECONDS))
            await self.http.start()
            opening.push_async_callback(within, WRITE_SECONDS, "HTTP", partial(self.http.stop, INTAKE_SECONDS))
            await self._look()
            self.supervision.keep("the look at the doors", self._keep_looking)
            opening.push_async_callback(self.supervision.end, "the look at the doors")
            self._exit = opening.pop_all()

    async def stop(self, *, drain: float = DRAIN_SECONDS) -> None:
        """Close the doors, let what is being sent end within `drain` seconds, write the rest down. Bounded in time."""
        self._drain = drain
        await self._exit.aclose()

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await self._look()

    async def _look(self) -> None:
        """See that every door is there, make anew what can be, and look again at what the settings name."""
        await asyncio.gather(self._secrets.again(STEP_SECONDS), self._keys.again(STEP_SECONDS))
        if self._control is not None:
            self._doors = await _mended(self._control, self.smtp)
        if lost := (*self.smtp.lost, *self.http.lost):
            self.supervision.fail(f"nobody listens on {', '.join(map(str, lost))} any more")

    def _died(self, why: str) -> None:
        """Have it among the events, where that can be."""

        async def record() -> None:
            with suppress(QueueError):
                await self.queue.arrivals.record(Event(at=self._clock.now(), kind="sick", text=why))

        recording = asyncio.create_task(record(), name="record of a death")
        self._recording.add(recording)
        recording.add_done_callback(self._recording.discard)

    async def _stop_sending(self) -> None:
        self.supervision.release("the smart host")
        await self.smarthost.drain(self._drain)
        await self.supervision.end("the smart host")
        with suppress(QueueError):  # a full or broken store is no reason not to stop
            await self.queue.arrivals.record(Event(at=self._clock.now(), kind="stopped"))

    def _tell(self, events: Sequence[Event]) -> None:
        """What has been committed is told to those who follow, and written to the mail log."""
        self.events.publish(events)
        if self._mail_log is not None:
            self._mail_log.publish(events)

    def _hear(self, news: News) -> None:
        """Another node has done what concerns us: do what whoever does it here does besides writing it."""
        match news.kind:
            case "resumed":
                self.smarthost.resumed(news.name)
            case "redirected":
                self.smarthost.redirected(news.name)
            case "marks":
                self._recall_marks()
            case "nodes":
                self._heed_drain()
                self.smarthost.wake()
            case _ if self._heard is None:
                self._heard = asyncio.get_running_loop().call_later(HEARD_SECONDS, self._look_at_what_was_heard)

    def _look_at_what_was_heard(self) -> None:
        self._heard = None
        self.smarthost.wake()

    def _heed_drain(self) -> None:
        """Take mail and send it, or leave that to others, as operators have it."""
        is_drained = self.queue.nodes.is_drained
        if is_drained != self.smarthost.is_drained:
            log.info("node %s is %s", self.queue.nodes.name, "drained" if is_drained else "not drained any more")
            self.smtp.drain(is_drained)
            self.smarthost.stand_aside(is_drained)

    def _said(self) -> Said:
        """What this node says of itself to the others."""
        smarthost, trouble = self.smarthost, self.trouble
        state = "sick" if trouble else "draining" if smarthost.draining or smarthost.is_drained else "relaying"
        return Said(
            state=state,
            trouble=trouble,
            connections=smarthost.connections,
            max_connections=smarthost.max_connections,
            relaying=sum(map(len, smarthost.managed.values())),
            rate_in=self.events.rate_in(),
            rate_out=self.events.rate_out(),
        )

    def _recall_marks(self) -> None:
        async def recall() -> None:
            with suppress(QueueError):  # they are read again at the next news
                await self.mx.load()
                self.smarthost.let_go()

        recalling = asyncio.create_task(recall(), name="marks of other nodes")
        self._recording.add(recalling)
        recalling.add_done_callback(self._recording.discard)

    def _listening(self) -> tuple[Listen, ...]:
        """Where mail comes in: by the settings, which hold before the doors are open, and as the system chose."""
        smtp = self.smtp
        bound = (*smtp.addresses, *smtp.submission_addresses, *smtp.submission_tls_addresses)
        return (*bound, *listening_by(self._settings))

    def _relay(self, started: float) -> Relay:
        return Relay(
            queue=self.queue,
            smarthost=self.smarthost,
            mx=self.mx,
            events=self.events,
            explainer=self.explainer,
            prober=self.prober,
            router=self._router,
            settings=self._settings,
            clock=self._clock,
            started=started,
            version=version("smarthost"),
            trouble=lambda: self.trouble,
            notes=lambda: self.notes,
            counter=self.counter,
        )


# -- the parts, each with what the settings say of it -----------------------------------------------------------------


def _queue(settings: Settings, folder: Path, clock: Clock, retries: RetryPlan) -> Queue:
    store = settings.queue
    if store.store:
        from engine.queue.postgres.store import PostgresQueue  # its driver takes long to load

        return PostgresQueue(
            store.store,
            clock,
            password=_password("the queue", store.password_file) if store.password_file is not None else "",
            node=store.node or settings.hostname,
            heartbeat=store.heartbeat,
            takeover=store.takeover,
            version=version("smarthost"),
            follow=clock.follow if isinstance(clock, FollowingClock) else lambda _, __: None,
            give_up_after=retries.give_up_after,
            delay_notice=settings.dsn.delay_notice,
            gather=settings.dsn.gather,
            events_kept=settings.events.kept,
        )
    return SqliteQueue(
        folder,
        clock,
        give_up_after=retries.give_up_after,
        delay_notice=settings.dsn.delay_notice,
        gather=settings.dsn.gather,
        events_kept=settings.events.kept,
        unsafe_on=(lambda _: "") if settings.spool_on_any_file_system else unsafe,
    )


def _mx(settings: Settings, resolver: Resolver, clock: Clock, queue: Queue, draw: random.Random | None) -> MXCalculator:
    delivery = settings.delivery
    return MXCalculator(
        resolver,
        clock=clock,
        marks=queue.marks,
        own_names=(settings.hostname,),
        bad_mx_timeout=delivery.bad_mx_timeout,
        bad_mx_timeout_max=delivery.bad_mx_timeout_max,
        fallback_to_domain=delivery.fallback_to_domain,
        draw=draw,
    )


def _attempts(settings: Settings, queue: Queue, retries: RetryPlan, clock: Clock, signer: Signer) -> AttemptManager:
    return AttemptManager(
        queue,
        retries,
        clock,
        suppress=partial(suppressed_for, settings=settings),
        most_suppressed=settings.suppression.most,
        hostname=settings.hostname,
        postmaster=settings.dsn.postmaster,
        content_returned=settings.dsn.content_returned,
        sign=lambda content: signer.sign(parts_of(content), settings.hostname),
    )


def _ourselves(settings: Settings, listening: Callable[[], tuple[Listen, ...]]) -> Ourselves:
    return Ourselves(
        names=(settings.hostname,), listening=listening, loopback_exchanges=settings.delivery.loopback_exchanges
    )


def _password(of: str, file: Path) -> str:
    """The password in a file. That it could be opened was so when the settings were read. Raises CannotStart."""
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = f"it is not UTF-8 (octet {error.start})" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise CannotStart(f"{of}: password_file {file}: {why}") from error


async def _mended(control: ControlServer, smtp: SmtpIntake) -> str:
    """Make anew what was removed of our Unix sockets; why that cannot be, or ""."""
    for what, mend in (("a control socket", control.mend), ("a socket of intake.smtp.listen", smtp.mend)):
        try:
            for path in await mend():
                log.warning("%s was removed or replaced: it is made anew", path)
        except OSError as error:
            log.error("%s is gone, and cannot be made anew: %s", what, error)
            return f"{what} is gone, and cannot be made anew: {clean(str(error), 200)}"
    return ""
