"""Enqueues, rolls back and reads through every kind of connection. test_old_world runs it with old libraries.

Arguments: a PostgreSQL URL, a SQLite URL, a Redis URL. Prints the ids that it enqueued and submitted, by database:
`{"postgresql": ["…"], "sqlite": ["…"]}`.
"""

import json
import sys
import warnings

import django
import psycopg
import psycopg2
import sqlalchemy
from django.conf import settings
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from afterword import Afterword

REQUEST = {"model": "m", "messages": [{"role": "user", "content": "100% : hello ?"}]}


def main(postgresql, sqlite, redis_url):
    # Old libraries warn about themselves; these warnings are not tested.
    warnings.simplefilter("ignore")
    _django(postgresql, sqlite)
    found = {"postgresql": [], "sqlite": []}
    for vendor, url in (("postgresql", postgresql), ("sqlite", sqlite)):
        engine = sqlalchemy.create_engine(url)
        for connections in (_plain(vendor, url), _alchemy(engine), _django_connection(vendor)):
            for target, commit, rollback in connections:
                client = Afterword(redis_url, engine)
                client.enqueue_many(target, [REQUEST] * 2)
                rollback()
                made = client.enqueue_many(target, [REQUEST] * 2)
                commit()
                assert client.get(made[0]).status == "queued"
                assert Afterword(database=url).get(made[1]).status == "queued"
                for orders in (client, Afterword(database=url)):
                    assert orders.cancel(made[0]) is None and orders.replay(made[1]) is None
                found[vendor] += made
        found[vendor].append(client.submit(REQUEST))
        client.close()
    sys.stdout.write(json.dumps(found))


def _plain(vendor, url):
    import sqlite3

    if vendor == "sqlite":
        opened = [sqlite3.connect(url[len("sqlite:///") :])]
    else:
        opened = [psycopg.connect(url), psycopg2.connect(url)]
    for connection in opened:
        yield connection, connection.commit, connection.rollback
        cursor = connection.cursor()
        yield cursor, connection.commit, connection.rollback
        cursor.close()
        connection.close()


def _alchemy(engine):
    with Session(engine) as session:
        yield session, session.commit, session.rollback
    scoped = scoped_session(sessionmaker(engine))
    yield scoped, scoped.commit, scoped.rollback
    scoped.remove()
    with engine.connect() as connection:
        transaction = [connection.begin()]

        def rollback():
            transaction[0].rollback()
            transaction[0] = connection.begin()

        yield connection, lambda: transaction[0].commit(), rollback


def _django(postgresql, sqlite):
    parts = psycopg.conninfo.conninfo_to_dict(postgresql)
    settings.configure(
        DATABASES={
            "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": sqlite[len("sqlite:///") :]},
            "postgresql": {
                "ENGINE": "django.db.backends.postgresql",
                "NAME": parts["dbname"],
                "HOST": parts["host"],
                "USER": parts["user"],
            },
        }
    )
    django.setup()


def _django_connection(vendor):
    from django.db import connection as default
    from django.db import connections

    connection = default if vendor == "sqlite" else connections[vendor]
    connection.set_autocommit(False)
    yield connection, connection.commit, connection.rollback
    with connection.cursor() as cursor:
        yield cursor, connection.commit, connection.rollback
    connection.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
