--- TensorBoard event files, written without any dependency: scalars, histograms, images, texts.
--
-- A file is a sequence of records `u64 length | u32 masked_crc(length) | data | u32 masked_crc(data)`, the data an
-- Event in protocol buffers' wire format. TensorBoard (and W&B's importer) find it by "tfevents" in its name.

local bit = require("bit")
local ffi = require("ffi")
local check = require("perigee.check")
local system = require("perigee.system")

local band, bor, bxor, rshift, lshift, tobit = bit.band, bit.bor, bit.bxor, bit.rshift, bit.lshift, bit.tobit

local M = {}

-- ---- CRC-32C (Castagnoli, reflected polynomial 0x82F63B78) ----

local crc_table = ffi.new("int32_t[256]")
for i = 0, 255 do
    local c = i
    for _ = 1, 8 do
        c = band(c, 1) == 1 and bxor(rshift(c, 1), 0x82F63B78) or rshift(c, 1)
    end
    crc_table[i] = c
end

--- CRC-32C of a text, as a number in [0, 2^32).
---@param text string
---@return number
function M.crc32c(text)
    local bytes = ffi.cast("const uint8_t *", text)
    local c = -1
    for i = 0, #text - 1 do
        c = bxor(rshift(c, 8), crc_table[band(bxor(c, bytes[i]), 255)])
    end
    return bxor(c, -1) % 2 ^ 32
end

--- The checksum as TFRecord stores it: rotated and offset, so that a file of checksums has none of its own.
function M.masked_crc32c(text)
    local c = tobit(M.crc32c(text))
    return (bor(rshift(c, 15), lshift(c, 17)) % 2 ^ 32 + 0xa282ead8) % 2 ^ 32
end

-- ---- wire format ----

local function varint(value)   -- a whole number in [0, 2^53), or a negative one (ten bytes, two's complement)
    local n = ffi.new("int64_t", value) + ffi.new("uint64_t", 0)
    local out = {}
    repeat
        local low = tonumber(band(n, 127))
        n = rshift(n, 7)
        out[#out + 1] = string.char(n ~= 0 and low + 128 or low)
    until n == 0
    return table.concat(out)
end

local function raw(ctype, value)
    return ffi.string(ffi.new(ctype .. "[1]", value), ffi.sizeof(ctype))
end

local function tag(field, wire)
    return varint(field * 8 + wire)
end
local function field_varint(field, value)
    return tag(field, 0) .. varint(value)
end
local function field_double(field, value)
    return tag(field, 1) .. raw("double", value)
end
local function field_float(field, value)
    return tag(field, 5) .. raw("float", value)
end
local function field_bytes(field, text)
    return tag(field, 2) .. varint(#text) .. text
end

local Writer = {}
Writer.__index = Writer

function Writer:_record(data)
    local length = raw("uint64_t", #data)
    local ok, why = self._file:write(length, raw("uint32_t", M.masked_crc32c(length)), data,
        raw("uint32_t", M.masked_crc32c(data)))
    if not ok then
        check.fail("cannot write %s: %s", self.path, why)
    end
end

function Writer:_event(step, body)
    if self._closed then
        check.fail("the event file %s is closed", self.path)
    end
    self:_record(field_double(1, system.time()) .. (step and field_varint(2, step) or "") .. body)
end

function Writer:_summary(name, step, value)
    if type(name) ~= "string" or name == "" then
        check.fail("an event needs a tag, got %s", check.describe(name))
    end
    check.integer("SummaryWriter", "step", step)
    self:_event(step, field_bytes(5, field_bytes(1, field_bytes(1, name) .. value)))
end

--- One point of a curve.
---@param name string the tag, such as "loss/train"
---@param value number stored as float32
---@param step integer
function Writer:add_scalar(name, value, step)
    if type(value) ~= "number" then
        check.fail("add_scalar: %s must be a number, got %s", tostring(name), check.describe(value))
    end
    self:_summary(name, step, field_float(2, value))
end

--- The distribution of values in `bins` bins of equal width. Non-finite values are not counted.
---@param name string
---@param values number[]|Tensor
---@param step integer
---@param bins integer? default 30
function Writer:add_histogram(name, values, step, bins)
    bins = check.integer("add_histogram", "bins", bins or 30, 1, 10000)
    if type(values) == "cdata" then
        values = values:flatten():totable()
    end
    local low, high, sum, squares, count = math.huge, -math.huge, 0, 0, 0
    for _, v in ipairs(values) do
        if v - v == 0 then
            low, high = math.min(low, v), math.max(high, v)
            sum, squares, count = sum + v, squares + v * v, count + 1
        end
    end
    if count == 0 then
        check.fail("add_histogram: %s holds no finite value", tostring(name))
    end
    local width = (high - low) / bins
    local counts, limits = {}, {}
    for i = 1, bins do
        counts[i] = 0
        limits[i] = i == bins and high or low + width * i
    end
    for _, v in ipairs(values) do
        if v - v == 0 then
            local i = width > 0 and math.min(math.floor((v - low) / width) + 1, bins) or bins
            counts[i] = counts[i] + 1
        end
    end
    -- An empty leftmost bin closes the histogram on the left: its right edge is where the first bin starts.
    local packed_limits, packed_counts = { raw("double", low) }, { raw("double", 0) }
    for i = 1, bins do
        packed_limits[i + 1] = raw("double", limits[i])
        packed_counts[i + 1] = raw("double", counts[i])
    end
    self:_summary(name, step, field_bytes(5, field_double(1, low) .. field_double(2, high) .. field_double(3, count)
        .. field_double(4, sum) .. field_double(5, squares) .. field_bytes(6, table.concat(packed_limits))
        .. field_bytes(7, table.concat(packed_counts))))
end

--- A picture, as the bytes of a PNG file.
---@param name string
---@param png string
---@param step integer
function Writer:add_image(name, png, step)
    if type(png) ~= "string" or png:sub(1, 8) ~= "\137PNG\r\n\26\n" or #png < 26 then
        check.fail("add_image: expected the bytes of a PNG file, got %s", check.describe(png))
    end
    local function big_endian(at)
        local a, b, c, d = png:byte(at, at + 3)
        return ((a * 256 + b) * 256 + c) * 256 + d
    end
    local channels = ({ [0] = 1, [2] = 3, [3] = 3, [4] = 2, [6] = 4 })[png:byte(26)] or 3
    self:_summary(name, step, field_bytes(4, field_varint(1, big_endian(21)) .. field_varint(2, big_endian(17))
        .. field_varint(3, channels) .. field_bytes(4, png)))
end

--- A text (Markdown in TensorBoard).
function Writer:add_text(name, text, step)
    local tensor = field_varint(1, 7) .. field_bytes(2, field_bytes(2, field_varint(1, 1))) .. field_bytes(8, text)
    local metadata = field_bytes(1, field_bytes(1, "text"))
    self:_summary(name, step, field_bytes(9, metadata) .. field_bytes(8, tensor))
end

function Writer:flush()
    self._file:flush()
end

function Writer:close()
    if not self._closed then
        self._closed = true
        self._file:close()
    end
end

local counter = 0

--- Opens a new event file in a folder, which is made where it is missing.
---@param folder string
function M.SummaryWriter(folder)
    local ok, why = system.mkdir(folder)
    if not ok then
        check.fail("SummaryWriter: %s", why)
    end
    counter = counter + 1
    local now = system.time()
    local path = ("%s/events.out.tfevents.%d.%s.%d.%d"):format(folder, now, system.hostname(), system.getpid(), counter)
    local file, message = io.open(path, "wb")
    if not file then
        check.fail("SummaryWriter: cannot write %s", message)
    end
    local self = setmetatable({ path = path, _file = file, _closed = false }, Writer)
    self:_event(nil, field_bytes(3, "brain.Event:2"))
    self:flush()
    return self
end

return M
