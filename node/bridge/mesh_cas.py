"""mesh_cas: what Bazel built through a buildmesh node, as a source of BuildStream 2.

    sources:
    - kind: mesh_cas
      url: http://127.0.0.1:8980        # the node; this is the default
      uri: mesh:bazel:////app:grep      # a target; ?path=bazel-out/k8-fastbuild/bin/app narrows it down
      ref: <sha256>/<size>              # `bst source track` writes it
"""
import hashlib
import io
import os

import grpc
from buildstream import Source, SourceError
from buildstream._protos.build.bazel.remote.asset.v1 import remote_asset_pb2, remote_asset_pb2_grpc
from buildstream._protos.build.bazel.remote.execution.v2 import remote_execution_pb2, remote_execution_pb2_grpc
from buildstream._protos.google.bytestream import bytestream_pb2, bytestream_pb2_grpc


class MeshCasSource(Source):
    BST_MIN_VERSION = "2.0"
    BST_STAGE_VIRTUAL_DIRECTORY = True

    def configure(self, node):
        node.validate_keys(["url", "uri", "ref", *Source.COMMON_CONFIG_KEYS])
        self.url = node.get_str("url", "http://127.0.0.1:8980")
        self.uri = node.get_str("uri")
        self.load_ref(node)

    def preflight(self):
        pass

    def get_unique_key(self):
        return [self.ref]

    def load_ref(self, node):
        self.ref = node.get_str("ref", None)

    def get_ref(self):
        return self.ref

    def set_ref(self, ref, node):
        node["ref"] = self.ref = ref

    def is_cached(self):
        return os.path.isdir(self._mesh_mirror())

    def collect_source_info(self):
        return [self.create_source_info(self.uri, "mesh", "cas-digest", self.ref)]

    def track(self):
        with self._mesh_channel() as channel, self.timed_activity("Asking {} for {}".format(self.url, self.uri)):
            request = remote_asset_pb2.FetchDirectoryRequest(uris=[self.uri])
            digest = remote_asset_pb2_grpc.FetchStub(channel).FetchDirectory(request).root_directory_digest
            return "{}/{}".format(digest.hash, digest.size_bytes)

    def fetch(self):
        hash_, size = self.ref.split("/")
        root = remote_execution_pb2.Digest(hash=hash_, size_bytes=int(size))
        with self._mesh_channel() as channel, self.tempdir() as tmp, self.timed_activity("Fetching {}".format(self.ref)):
            self._mesh_tree(bytestream_pb2_grpc.ByteStreamStub(channel), root, os.path.join(tmp, "tree"))
            os.rename(os.path.join(tmp, "tree"), self._mesh_mirror())

    def stage_directory(self, directory):
        directory.import_files(self._mesh_mirror(), collect_result=False)

    def _mesh_mirror(self):
        return os.path.join(self.get_mirror_directory(), self.ref.replace("/", "-"))

    def _mesh_channel(self):
        return _Channel(self)

    def _mesh_tree(self, stream, digest, path):
        encoded = io.BytesIO()
        self._mesh_read(stream, digest, encoded)
        message = remote_execution_pb2.Directory.FromString(encoded.getvalue())
        os.mkdir(path)
        for node in [*message.files, *message.symlinks, *message.directories]:
            if node.name in ("", ".", "..") or "/" in node.name:
                raise SourceError("{}: {!r} is no name in a directory".format(self, node.name))
        for node in message.files:
            with open(os.path.join(path, node.name), "wb") as file:
                self._mesh_read(stream, node.digest, file)
            os.chmod(file.name, 0o755 if node.is_executable else 0o644)
        for node in message.symlinks:
            os.symlink(node.target, os.path.join(path, node.name))
        for node in message.directories:
            self._mesh_tree(stream, node.digest, os.path.join(path, node.name))

    def _mesh_read(self, stream, digest, file):
        name = "blobs/{}/{}".format(digest.hash, digest.size_bytes)
        checksum = hashlib.sha256()
        for response in stream.Read(bytestream_pb2.ReadRequest(resource_name=name)):
            checksum.update(response.data)
            file.write(response.data)
        if checksum.hexdigest() != digest.hash:
            raise SourceError("{}: {} came with other content".format(self, name))


class _Channel:
    """A connection to the node; what goes wrong on it is an error of the source."""

    def __init__(self, source):
        self.source = source
        self.channel = grpc.insecure_channel(source.url.split("://")[-1])

    def __enter__(self):
        return self.channel

    def __exit__(self, kind, error, trace):
        self.channel.close()
        if isinstance(error, grpc.RpcError):
            raise SourceError("{}: {}".format(self.source, error.details())) from error


def setup():
    return MeshCasSource
