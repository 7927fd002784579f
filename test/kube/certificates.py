"""Throw-away certificate authorities for tests, made by openssl(1)."""

import os
import subprocess

NAMES = "IP:127.0.0.1,IP:::1,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc"


def _openssl(*words):
    subprocess.run(["openssl", *words], check=True, capture_output=True, timeout=60)


class Authority:
    """A CA in `folder`: NAME.crt, NAME.key."""

    def __init__(self, folder, name="ca"):
        self.folder = folder
        self.cert, self.key = os.path.join(folder, f"{name}.crt"), os.path.join(folder, f"{name}.key")
        _openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
                 "-keyout", self.key, "-out", self.cert, "-subj", f"/CN=test {name}")

    def issue(self, name, subject, alternatives=NAMES):
        """Certificate and key for a server or a client. Returns both paths."""
        cert, key = os.path.join(self.folder, f"{name}.crt"), os.path.join(self.folder, f"{name}.key")
        request, extensions = os.path.join(self.folder, f"{name}.csr"), os.path.join(self.folder, f"{name}.ext")
        with open(extensions, "w", encoding="utf-8") as stream:
            stream.write(f"extendedKeyUsage=serverAuth,clientAuth\nsubjectAltName={alternatives}\n")
        _openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-out", request, "-subj", subject)
        _openssl("x509", "-req", "-in", request, "-CA", self.cert, "-CAkey", self.key, "-CAcreateserial", "-days", "30", "-out", cert,
                 "-extfile", extensions)
        return cert, key
