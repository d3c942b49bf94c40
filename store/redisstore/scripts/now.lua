-- Copyright The cftrack Authors
-- SPDX-License-Identifier: Apache-2.0

-- Reads the clock of the node that holds the root.
-- KEYS: root
return redis.call('TIME')
