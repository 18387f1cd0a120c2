local bit = require("bit")
local ffi = require("ffi")
local system = require("perigee.system")
local tensorboard = require("perigee.train.tensorboard")

local function temporary_folder()
    local path = os.tmpname()
    os.remove(path)
    return path
end

local function u32(text)
    local a, b, c, d = text:byte(1, 4)
    return a + b * 256 + c * 65536 + d * 2 ^ 24
end

-- A bitwise CRC-32C, slow and plain: the reference for the table-driven one.
local function plain_crc32c(text)
    local c = 0xFFFFFFFF
    for i = 1, #text do
        c = bit.bxor(c, text:byte(i))
        for _ = 1, 8 do
            local low = bit.band(c, 1)
            c = bit.rshift(c, 1)
            if low == 1 then
                c = bit.bxor(c, 0x82F63B78)
            end
        end
    end
    return bit.bnot(c) % 2 ^ 32
end

-- The records of an event file, their checksums verified.
local function records(path)
    local text, list, at = system.read_file(path), {}, 1
    while at <= #text do
        local length = u32(text:sub(at, at + 3))
        assert.equal(0, u32(text:sub(at + 4, at + 7)))
        assert.equal(tensorboard.masked_crc32c(text:sub(at, at + 7)), u32(text:sub(at + 8, at + 11)))
        local body = text:sub(at + 12, at + 11 + length)
        assert.equal(tensorboard.masked_crc32c(body), u32(text:sub(at + 12 + length, at + 15 + length)))
        list[#list + 1] = body
        at = at + 16 + length
    end
    return list
end

-- Protocol buffers' wire format as {field = {values}}: enough to read events back.
local function message(text)
    local fields, at = {}, 1
    local function varint()
        local value, shift = 0, 1
        while true do
            local byte = text:byte(at)
            at = at + 1
            value = value + (byte % 128) * shift
            shift = shift * 128
            if byte < 128 then
                return value
            end
        end
    end
    while at <= #text do
        local key = varint()
        local field, wire = math.floor(key / 8), key % 8
        local value
        if wire == 0 then
            value = varint()
        elseif wire == 1 then
            value = ffi.cast("double *", ffi.cast("const char *", text:sub(at, at + 7)))[0]
            at = at + 8
        elseif wire == 5 then
            value = ffi.cast("float *", ffi.cast("const char *", text:sub(at, at + 3)))[0]
            at = at + 4
        else
            local length = varint()
            value = text:sub(at, at + length - 1)
            at = at + length
        end
        fields[field] = fields[field] or {}
        table.insert(fields[field], value)
    end
    return fields
end

local function doubles(text)
    local list = {}
    for i = 1, #text, 8 do
        list[#list + 1] = ffi.cast("double *", ffi.cast("const char *", text:sub(i, i + 7)))[0]
    end
    return list
end

describe("train.SummaryWriter", function()
    it("computes CRC-32C", function()
        assert.equal(0xE3069283, tensorboard.crc32c("123456789"))
        assert.equal(0x8A9136AA, tensorboard.crc32c(("\0"):rep(32)))
        assert.equal(0x62A8AB43, tensorboard.crc32c(("\255"):rep(32)))
        assert.equal(0, tensorboard.crc32c(""))
        local text = ("the quick brown fox\n"):rep(50)
        assert.equal(plain_crc32c(text), tensorboard.crc32c(text))
        -- The mask: rotated right by 15, and a constant.
        local c = tensorboard.crc32c(text)
        local rotated = math.floor(c / 2 ^ 15) + (c % 2 ^ 15) * 2 ^ 17
        assert.equal((rotated + 0xa282ead8) % 2 ^ 32, tensorboard.masked_crc32c(text))
    end)

    it("writes scalars that read back", function()
        local folder = temporary_folder()
        local writer = tensorboard.SummaryWriter(folder)
        writer:add_scalar("loss/train", 2.5, 0)
        writer:add_scalar("loss/train", -0.125, 1000000)
        writer:close()
        assert.matches("tfevents", writer.path)
        local list = records(writer.path)
        assert.equal(3, #list)
        local first = message(list[1])
        assert.equal("brain.Event:2", first[3][1])
        assert.is_true(math.abs(first[1][1] - os.time()) < 100)
        local event = message(list[3])
        assert.equal(1000000, event[2][1])
        local value = message(message(event[5][1])[1][1])
        assert.equal("loss/train", value[1][1])
        assert.equal(-0.125, value[2][1])
        assert.has_error(function() writer:add_scalar("a", 1, 2) end)
    end)

    it("writes negative steps as ten bytes", function()
        local writer = tensorboard.SummaryWriter(temporary_folder())
        writer:add_scalar("a", 1, -1)
        writer:close()
        assert.is_truthy(records(writer.path)[2]:find("\16" .. ("\255"):rep(9) .. "\1", 1, true))
    end)

    it("writes histograms with every value in a bin", function()
        local writer = tensorboard.SummaryWriter(temporary_folder())
        writer:add_histogram("weights", { 0, 0.1, 0.2, 1, 0 / 0, math.huge }, 3, 4)
        writer:add_histogram("constant", { 5, 5 }, 3, 4)
        writer:close()
        local list = records(writer.path)
        local histogram = message(message(message(message(list[2])[5][1])[1][1])[5][1])
        assert.same({ 0 }, histogram[1])
        assert.same({ 1 }, histogram[2])
        assert.same({ 4 }, histogram[3])
        local limits, counts = doubles(histogram[6][1]), doubles(histogram[7][1])
        assert.same({ 0, 0.25, 0.5, 0.75, 1 }, limits)
        assert.same({ 0, 3, 0, 0, 1 }, counts)
        local constant = message(message(message(message(list[3])[5][1])[1][1])[5][1])
        assert.same({ 0, 0, 0, 0, 2 }, doubles(constant[7][1]))
    end)

    it("refuses what is no number, no picture, no tag", function()
        local writer = tensorboard.SummaryWriter(temporary_folder())
        assert.has_error(function() writer:add_scalar("a", "1", 0) end)
        assert.has_error(function() writer:add_scalar("", 1, 0) end)
        assert.has_error(function() writer:add_scalar("a", 1, 0.5) end)
        assert.has_error(function() writer:add_image("a", "GIF89a", 0) end)
        assert.has_error(function() writer:add_histogram("a", { 0 / 0 }, 0) end)
        writer:close()
    end)

    it("says why a folder cannot be written", function()
        local ok, why = pcall(tensorboard.SummaryWriter, "/proc/no/such")
        assert.is_false(ok)
        assert.matches("/proc/no", why)
    end)
end)
