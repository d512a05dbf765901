################################################################################
#
# cardshop-agent
#
################################################################################

CARDSHOP_AGENT_VERSION = 0.1.0
CARDSHOP_AGENT_SITE = $(BR2_EXTERNAL_CARDSHOP_PATH)/..
CARDSHOP_AGENT_SITE_METHOD = local
CARDSHOP_AGENT_LICENSE = GPL-3.0-or-later
CARDSHOP_AGENT_LICENSE_FILES = LICENSE
# Everything the sources' folder may hold beside sources.
CARDSHOP_AGENT_OVERRIDE_SRCDIR_RSYNC_EXCLUSIONS = \
	--exclude target --exclude 'target-*' --exclude node_modules

CARDSHOP_AGENT_PREBUILT = $(call qstrip,$(BR2_PACKAGE_CARDSHOP_AGENT_PREBUILT))

define CARDSHOP_AGENT_INSTALL_TARGET_CMDS
	$(INSTALL) -D -m 0755 $(CARDSHOP_AGENT_BINARY) \
		$(TARGET_DIR)/usr/bin/cardshop-agent
endef

ifneq ($(CARDSHOP_AGENT_PREBUILT),)
CARDSHOP_AGENT_BINARY = $(CARDSHOP_AGENT_PREBUILT)
$(eval $(generic-package))
else
CARDSHOP_AGENT_BINARY = $(@D)/target/$(RUSTC_TARGET_NAME)/appliance/cardshop-agent
# Not Buildroot's own build step: that knows only the profiles release and dev.
define CARDSHOP_AGENT_BUILD_CMDS
	cd $(@D) && $(TARGET_MAKE_ENV) $(TARGET_CONFIGURE_OPTS) \
		$(PKG_CARGO_ENV) cargo build --offline --locked \
		--profile appliance --package cardshop-agent
endef
$(eval $(cargo-package))
endif
