"""What the event mechanism measures."""

from __future__ import annotations

from servicekit.telemetry import counter, gauge, histogram

outbox_pending = gauge("outbox_pending", "Outbox rows that JetStream has not acknowledged (leader's count)")
outbox_oldest_seconds = gauge("outbox_oldest_seconds", "Age of the oldest such row; 0 without one")
relay_leading = gauge("relay_leading", "1 where this process is the leading relay")
relayed = counter("relay_published_total", "Events that JetStream acknowledged")
relay_duplicates = counter("relay_duplicates_total", "Events that JetStream had already, counted as acknowledged")
relay_rejected_batches = counter("relay_rejected_batches_total", "Atomic batches sent again event by event")
consumed = counter("events_consumed_total", "Events handled and committed", ("durable",))
duplicates = counter("events_duplicates_total", "Events absorbed by the inbox", ("durable",))
retried = counter("events_retried_total", "Events given back for another delivery", ("durable",))
dead_letters = counter("events_dead_letters_total", "Events moved to the dead letters", ("durable",))
lag = histogram(
    "events_lag_seconds",
    "From the event's time to the commit of its effect",
    ("durable",),
    (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 300.0),
)
left_unread = gauge(
    "events_left_unread", "1 while the stream lacks what a durable had not handled (leading relay)", ("durable",)
)
sent_again = counter("events_sent_again_total", "Events sent again to one durable from the outbox", ("durable",))
left_for_good = counter(
    "events_may_be_lost_total", "Times that such events may be older than the outbox, too", ("durable",)
)
pending = gauge("events_pending", "Events of a durable that wait in the stream", ("durable",))
