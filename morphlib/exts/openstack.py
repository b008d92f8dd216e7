"""Puts systems into OpenStack clouds, as images."""

from __future__ import annotations

from pathlib import Path

from morphlib.errors import MorphError, Reason
from morphlib.writeexts.extension import WriteExtension
from morphlib.writeexts.openstackcloud import Account, logged_in, parse_keystone_url
from morphlib.writeexts.parameters import Parameters, required_text, text
from morphlib.writeexts.program import use_own_python
from morphlib.writeexts.systemimage import check_system_image
from morphlib.writeexts.transfer import tell_progress
from morphlib.writeexts.tree import Tree
from morphlib.writeexts.virtualmachine import WRONG_MODE, image_parameters, temporary_image

USER = required_text("OPENSTACK_USER", "Who logs in.")
PASSWORD = required_text("OPENSTACK_PASSWORD", "The user's password.", secret=True)
TENANT = required_text("OPENSTACK_TENANT", "The project that the image is for.")
IMAGENAME = required_text("OPENSTACK_IMAGENAME", "The name of the image.")
USER_DOMAIN = text("OPENSTACK_USER_DOMAIN", "The domain that the user belongs to.", "Default")
PROJECT_DOMAIN = text(
    "OPENSTACK_PROJECT_DOMAIN", "The domain that the project belongs to.", "Default"
)
REGION = text("OPENSTACK_REGION", "The region, where the cloud has several.")
CACERT = text(
    "OPENSTACK_CACERT",
    """A file with the certificates of authorities to trust for https, PEM. Without it these are
    the ones that are generally known.""",
)

_ROOT_DEVICE = "/dev/vda"


class Openstack(WriteExtension):
    description = """
    Put a system into an OpenStack cloud, as an image to start instances from.

    A disk image is made here and handed to the image service, Glance. No instance is started. The
    system finds its root file system on /dev/vda; with `vdaboot` among the system's
    configuration-extensions its fstab says so, too.
    """
    location_help = """
    URL of the identity service, Keystone: https://HOST:5000/v3, for example. What ends in /v2.0 is
    taken to mean /v3.
    """
    parameters = (
        *(USER, PASSWORD, TENANT, IMAGENAME),
        *(USER_DOMAIN, PROJECT_DOMAIN, REGION, CACERT),
        *image_parameters(_ROOT_DEVICE),
    )
    wrong_mode = WRONG_MODE

    def check(self, location: str, given: Parameters) -> None:
        account = self._account(location, given)
        check_system_image(given)
        _check_library()
        with logged_in(account):
            pass

    def write(self, tree: Tree, location: str, given: Parameters) -> None:
        account = self._account(location, given)
        name = given[IMAGENAME]
        _check_library()
        with temporary_image(tree, given, self.devices, _ROOT_DEVICE) as image:
            self.status("Logging in to OpenStack")
            with logged_in(account) as cloud:
                self.status(f"Uploading the image {name}")
                tell = tell_progress(self.status, "Uploading the image")
                number = cloud.upload(name, image, tell)
        self.status(f"The image {name} is in OpenStack, with the id {number}")

    def _account(self, location: str, given: Parameters) -> Account:
        ca = Path(given[CACERT]) if given[CACERT] else None
        if ca is not None and not ca.is_file():
            raise MorphError(f"OPENSTACK_CACERT: there is no file {ca}", reason=Reason.DEPLOY)
        return Account(
            url=parse_keystone_url(location),
            user=given[USER],
            project=given[TENANT],
            password=given[PASSWORD],
            user_domain=given[USER_DOMAIN],
            project_domain=given[PROJECT_DOMAIN],
            region=given[REGION],
            ca=ca,
        )


def _check_library() -> None:
    """Not at the top: it is large, and most who use Morph have no cloud."""
    try:
        import openstack  # noqa: F401
    except ModuleNotFoundError as error:
        use_own_python()
        raise MorphError(
            f"openstack needs the Python library {error.name}",
            reason=Reason.DEPLOY,
            hint="Install it beside Morph: pip install 'morph[openstack]', or openstacksdk",
        ) from error


WRITE = Openstack()
