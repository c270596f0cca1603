"""The signed request of one delivery attempt. Secrets are opened for one request and not kept."""

from datetime import UTC, datetime
from uuid import UUID

from worker.webhooks.core.event import EventType, event_id_of
from worker.webhooks.core.payload import Variant, convenience_headers, sent_body, webhook_id
from worker.webhooks.core.signature import signed_headers
from worker.webhooks.net.send import WebhookRequest
from worker.webhooks.sealed_fields import headers_of, keys_of, new_keys, public_text, seal_keys, seal_shown_url, url_of
from worker.webhooks.store.claim import DeliveryClaim
from worker.webhooks.store.secrets import FirstKeys
from worker.webhooks.vault import Vault, sign_ed25519


def needs_keys(claim: DeliveryClaim) -> bool:
    """Say whether the receiver has no keys yet, or a query that is not sealed: a job's URL created its row."""
    return claim.keys_sealed is None or (claim.url_sealed is None and "?" in claim.url)


def first_keys(vault: Vault, claim: DeliveryClaim) -> FirstKeys:
    """Create the keys of such a receiver and seal its URL."""
    keys, _ = new_keys(_sent_at(claim))
    sealed = seal_keys(vault, claim.receiver_id, keys)
    address = seal_shown_url(vault, claim.receiver_id, claim.url, claim.url_sealed)
    return FirstKeys(claim.receiver_id, sealed, public_text(keys), *address)


def build_request(vault: Vault, claim: DeliveryClaim, frozen: bytes, keys_sealed: str | None) -> WebhookRequest:
    """Build the request that sends the event's `frozen` body. Raises CannotOpen."""
    at = _sent_at(claim)
    body = sent_body(Variant(claim.variant), frozen, sequence=claim.sequence, previous_undelivered=claim.after_gap)
    signatures = signed_headers(
        keys_of(vault, claim.receiver_id, keys_sealed),
        webhook_id(event_id_of(UUID(claim.event_id)), claim.receiver_id),
        body,
        at=at,
        ed25519=sign_ed25519,
    )
    ours = convenience_headers(
        EventType(claim.event_type),
        delivery_id=claim.delivery_id,
        attempt=claim.attempt,
        first_attempt_at=at if claim.first_sent_s is None else datetime.fromtimestamp(claim.first_sent_s, UTC),
    )
    url = url_of(vault, claim.receiver_id, claim.url, claim.url_sealed)
    return WebhookRequest(
        url=url,
        body=body,
        # The signatures last: no header of the receiver replaces one.
        headers={**headers_of(vault, claim.receiver_id, claim.headers_sealed, url=url), **ours, **signatures},
        timeout_s=claim.timeout_s,
        owner=claim.tenant,
    )


def _sent_at(claim: DeliveryClaim) -> datetime:
    # The database's clock: receivers refuse a time that is minutes off, and the same clock decides when keys expire.
    return datetime.fromtimestamp(claim.now_s, UTC)
