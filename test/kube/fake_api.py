"""An API server of our own that can be told to misbehave: lists in pages, watches with bookmarks, over TLS, one thread a connection.

Whatever a test wants to go wrong it puts into `server.faults`: functions that are asked about every request, in order, and that answer it
themselves and return True, or return False. Each is asked until it is taken out.
"""

import copy
import json
import socket
import ssl
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PLURALS = ("pods", "namespaces", "networkpolicies", "services", "endpointslices", "nodes")


def status(code, reason, message, **more):
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message, **more}


class Storage:
    """Objects by kind and name, and everything that happened since `compacted`."""

    def __init__(self):
        self.changed = threading.Condition()
        self.version = 100
        self.compacted = 0
        self.objects = {plural: {} for plural in PLURALS}
        self.history = []  # (version, plural, event)

    def put(self, plural, item):
        with self.changed:
            self.version += 1
            item = copy.deepcopy(item)
            meta = item["metadata"]
            key = (meta.get("namespace", ""), meta["name"])
            old = self.objects[plural].get(key)
            meta.setdefault("uid", old["metadata"]["uid"] if old else f"uid-{self.version}")
            meta["resourceVersion"] = str(self.version)
            self.objects[plural][key] = item
            self.history.append((self.version, plural, {"type": "MODIFIED" if old else "ADDED", "object": item}))
            self.changed.notify_all()

    def delete(self, plural, name, namespace="default"):
        with self.changed:
            self.version += 1
            item = copy.deepcopy(self.objects[plural].pop((namespace if plural not in ("namespaces", "nodes") else "", name)))
            item["metadata"]["resourceVersion"] = str(self.version)
            self.history.append((self.version, plural, {"type": "DELETED", "object": item}))
            self.changed.notify_all()

    def compact(self):
        """What happened until now can no longer be watched, nor can what came before some other thing that nobody here looks at."""
        with self.changed:
            self.version += 1
            self.compacted = self.version
            self.history.clear()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def setup(self):
        self.request.settimeout(30)
        self.request.do_handshake()
        super().setup()

    @property
    def plural(self):
        return self.parsed.path.rsplit("/", 1)[-1]

    @property
    def watching(self):
        return self.query.get("watch") == "true"

    def do_GET(self):
        self._answer(self._list_or_watch)

    def do_POST(self):
        self.body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self._answer(self._create)

    def _answer(self, usual):
        self.parsed = urllib.parse.urlsplit(self.path)
        self.query = dict(urllib.parse.parse_qsl(self.parsed.query))
        server = self.server.api
        with server.lock:
            server.requests.append((time.monotonic(), self.command, self.path, self.headers.get("Authorization", "")))
            faults = list(server.faults)
        try:
            for fault in faults:
                if fault(self):
                    return
            if server.token is not None and self.headers.get("Authorization") != f"Bearer {server.token}":
                self.refuse(401, "Unauthorized", "Unauthorized")
                return
            usual()
        except (OSError, ValueError):
            self.close_connection = True

    # What faults are made of.

    def send_object(self, code, item, headers=()):
        self.send_text(code, json.dumps(item).encode(), headers)

    def refuse(self, code, reason, message, headers=()):
        self.send_object(code, status(code, reason, message), headers)
        return True

    def send_text(self, code, text, headers=()):
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text)

    def begin_stream(self):
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()

    def send_chunk(self, text):
        self.wfile.write(f"{len(text):x}\r\n".encode() + text + b"\r\n")
        self.wfile.flush()

    def send_event(self, event):
        self.send_chunk(json.dumps(event).encode() + b"\n")

    def reset(self):
        """Ends the connection with a TCP RST, whatever has been sent."""
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        self.close_connection = True
        self.request.unwrap = lambda: None
        self.request.close()

    # What a well-behaved server does.

    def _list_or_watch(self):
        if self.plural not in PLURALS:
            self.refuse(404, "NotFound", "the server could not find the requested resource")
        elif self.watching:
            self._watch()
        else:
            self.send_object(200, self.page())

    def page(self):
        storage = self.server.api.storage
        with storage.changed:
            items = [item for _, item in sorted(storage.objects[self.plural].items())]
            begin = int(self.query.get("continue", "0"))
            end = begin + int(self.query["limit"]) if "limit" in self.query else len(items)
            meta = {"resourceVersion": str(storage.version)}
            if end < len(items):
                meta["continue"] = str(end)
            return {"kind": "List", "apiVersion": "v1", "metadata": meta, "items": items[begin:end]}

    def _watch(self):
        storage = self.server.api.storage
        since = int(self.query["resourceVersion"])
        if since < storage.compacted:
            self.refuse(410, "Expired", f"too old resource version: {since}")
            return
        self.begin_stream()
        ends = time.monotonic() + float(self.query["timeoutSeconds"])
        while time.monotonic() < ends and not self.server.api.closing:
            with storage.changed:
                news = [entry for entry in storage.history if entry[0] > since and entry[1] == self.plural]
                if not news:
                    storage.changed.wait(0.5)
            for version, _, event in news:
                self.send_event(event)
                since = version
        self.send_chunk(b"")

    def _create(self):
        server = self.server.api
        with server.lock:
            server.created.append((self.parsed.path, json.loads(self.body)))
        self.send_object(201, json.loads(self.body))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def handle_error(self, request, client_address):
        pass  # a peer that left, or that does not trust us


class FakeApi:
    """Serves `storage` on 127.0.0.1:`port` (0: a free one, kept over stop and start)."""

    def __init__(self, cert, key, storage=None):
        self.cert, self.key = cert, key
        self.storage = storage or Storage()
        self.token = None  # anyone, or who has it
        self.lock = threading.Lock()
        self.faults, self.requests, self.created = [], [], []
        self.port, self.closing = 0, False
        self._server = None

    @property
    def url(self):
        return f"https://127.0.0.1:{self.port}"

    def start(self):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.cert, self.key)
        self.closing = False
        self._server = _Server(("127.0.0.1", self.port), Handler)
        self._server.api = self
        self._connections = []
        accept = self._server.get_request

        def get_request():
            connection, address = accept()
            wrapped = context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
            self._connections.append(wrapped)
            return wrapped, address

        self._server.get_request = get_request
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def stop(self):
        """Nobody listens any more, and every connection is gone."""
        self.closing = True
        self._server.shutdown()
        self._server.server_close()
        for connection in self._connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def fault(self, function):
        """Adds a fault; the result takes it out again."""
        with self.lock:
            self.faults.append(function)

        def remove():
            with self.lock:
                if function in self.faults:
                    self.faults.remove(function)

        return remove

    def once(self, plural, watching, function):
        """Does `function` to the next request of that kind, once. The result is an event that is set when it was."""
        done = threading.Event()

        def fault(handler):
            if handler.plural != plural or handler.watching != watching or done.is_set():
                return False
            done.set()
            function(handler)
            return True

        self.fault(fault)
        return done

    def asked(self, plural, watching):
        """Times and paths of the requests of one kind so far."""
        with self.lock:
            return [(at, path) for at, _, path, _ in self.requests if f"/{plural}?" in path and ("watch=true" in path) == watching]
