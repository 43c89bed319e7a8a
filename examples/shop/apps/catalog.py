"""The catalog: a list of goods, and which replica gave it."""
import json
import os
import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Catalog(BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"replica": os.environ.get("POD_NAME", ""), "goods": ["tea", "cups"]})
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    address_family = socket.AF_INET6
    daemon_threads = True


print("catalog listens on 8000", flush=True)
Server(("::", 8000), Catalog).serve_forever()
