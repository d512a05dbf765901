include $(sort $(wildcard $(BR2_EXTERNAL_CARDSHOP_PATH)/package/*/*.mk))
