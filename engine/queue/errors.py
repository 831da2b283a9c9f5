"""What a queue raises where it cannot do what was asked: all are QueueError, so who needs no more asks for that."""


class QueueError(Exception):
    """The queue could not do what was asked; nothing of it was done."""


class QueueFull(QueueError):
    """No room on the disk for this. It works again once there is."""


class QueueBroken(QueueError):
    """The store failed to write; it takes nothing more until the engine is started anew.

    After a failed fsync what is on disk is unknown, and a second fsync may say "ok" of pages that were lost.
    """


class QueueBusy(QueueError):
    """Somebody else holds the store; it works again once they let go."""


class QueueDamaged(QueueError):
    """A page that this needs cannot be read; nothing of it was done. What does not need that page goes on."""


class NotRunning(QueueError):
    """The attempt to be settled is not running any more: it was settled, put back or interrupted before."""


class NotHeld(QueueError):
    """A claim may be another node's by now: see Claims.holds. Nothing of it is to be sent any more."""


class NoSuchNode(QueueError):
    """There is no node of this name among those that share the queue, or not any more."""


class NodeSilent(QueueError):
    """A node did not answer in time, or not with anything that could be read."""


class NoSuchMessage(QueueError):
    """There is no message of this number in the queue."""
