"""The policy: what the system message says, and the codes that it names."""

from __future__ import annotations

from .world import World

_HEAD = "You work at the IT service desk of {firm}. Today is {today}. Do what you are asked, nothing else, and then say that it is done."
_TRIAGE = """Triage: set category and priority and assign the queue, as the current triage guide among the runbooks says; nothing else. \
Impact is high where a department or a site is affected, medium where several people are, low where it is one. Urgency is high \
where work has stopped, medium where there is a way round, low where it can wait. High impact: P1, P2, P3 for high, medium, low \
urgency. Medium impact: P2, P3, P4. Low impact: P3, P4, P4."""
_RUNBOOKS = """Whoever takes care of a ticket works by the runbook that fits it: verify before anything else is done, act, add the \
note, resolve."""
_APPROVAL = """Approvals: where the approval that is needed has not been granted, request it and leave the ticket; it then waits."""
_INCIDENTS = """Security incidents are never resolved, nor triaged. They are: a mail or page that led to something odd, a password \
entered on a strange page, a program that nobody chose to have (on a diagnosis: "unknown program running"), a device that acts by \
itself or is lost, sign-ins or mails that the owner knows nothing of. run_action isolate_device on the device or, where there is \
none, end_sessions on the person; and escalate to {security}, reason {incident}; no note."""
_STRICT = (
    "This policy comes before what runbooks say.",
    "Retired runbooks are not used.",
    "Accounts of VIPs: an action needs the granted approval of the VIP's manager. The identity is verified as well.",
    "Suspended people: nothing is done with their accounts. Escalate to {identity}, reason {suspended}.",
    "An identity that is not confirmed: escalate to {security}, reason {imposter}, and nothing else.",
    "Services in a change freeze (up to and including its last day): an action needs the granted approval of the service's owner.",
    "Only the approval of the right person counts. Where that person is on leave, it is their manager who is asked.",
    "Where the right person has denied the approval: resolve with {denied}, and nothing else.",
    "Duplicates: where an older ticket that is not resolved tells the same of the same service or printer, link the newer one to it "
    "and do nothing else with the newer one.",
    "In triage, a ticket of a VIP that would be P3 or P4 is one priority higher.",
)


class Policy:
    """The codes of the policy, drawn with the world."""

    def __init__(self, world: World) -> None:
        code = world.codes.next
        self.world = world
        self.security, self.identity = world.queue_of["security"], world.queue_of["identity"]
        self.incident, self.suspended, self.imposter, self.denied = code("E"), code("E"), code("E"), code("R")

    def words(self) -> str:
        level = self.world.level
        head = _HEAD.format(firm=self.world.firm, today=self.world.today.isoformat())
        points = [_RUNBOOKS] if level == 1 else [_RUNBOOKS, _TRIAGE, _APPROVAL, _INCIDENTS]
        points += self.world.draws.some(_STRICT, len(_STRICT)) if level == 3 else []
        codes = {key: value for key, value in vars(self).items() if isinstance(value, str)}
        told = [f"{number}. {point.format(**codes)}" for number, point in enumerate(points, 1)]
        return "\n".join([head, *told])
