-- safetensors: what is read and written, and every file that must be refused.

local pg = require "perigee"
local shell = require "spec.build.shell"

local folder
setup(function() folder = shell.temporary_folder() end)
teardown(function() shell.must("rm -rf " .. shell.quote(folder)) end)

local function u64(n)
    local bytes = {}
    for k = 1, 8 do
        bytes[k] = string.char(n % 256)
        n = math.floor(n / 256)
    end
    return table.concat(bytes)
end

--- A file of a header's text and data.
local function write(header, data, length)
    local path = folder .. "/file.safetensors"
    shell.write(path, u64(length or #header) .. header .. (data or ""))
    return path
end

local function refused(pattern, header, data, length)
    local path = write(header, data, length)
    for _, mmap in ipairs { false, true } do
        local ok, message = pcall(pg.safetensors.load, path, { mmap = mmap })
        assert.is_false(ok, "was not refused: " .. pattern)
        assert.is_truthy(message:find(pattern, 1, true), message)
        assert.is_truthy(message:find(path, 1, true), "the file is not named: " .. message)
    end
end

local function entry(dtype, shape, first, last)
    return ('{"dtype":"%s","shape":%s,"data_offsets":[%s,%s]}'):format(dtype, shape, first, last)
end

describe("reading", function()
    it("takes a file as others write it", function()
        local path = write('{"__metadata__":{"format":"pt","k\\u00e9\\n":"v"},"b":' .. entry("F32", "[2, 1]", 8, 16)
            .. ' , "a\\ud83d\\ude00/\\"":' .. entry("I64", "[]", 0, 8) .. ',"none":' .. entry("F16", "[0,3]", 16, 16)
                .. "}   ",
            "\1\0\0\0\0\0\0\0" .. "\0\0\128\63" .. "\0\0\0\192")
        for _, mmap in ipairs { false, true } do
            local tensors, metadata, names = pg.safetensors.load(path, { mmap = mmap })
            assert.same({ "b", 'a\240\159\152\128/"', "none" }, names)
            assert.same({ { 1 }, { -2 } }, tensors.b:totable())
            local a = tensors['a\240\159\152\128/"']
            assert.equal(pg.int64, a.dtype)
            assert.equal(0, a.ndim)
            assert.equal(1, a:item())
            assert.same({ 0, 3 }, { unpack(tensors.none.shape) })
            assert.same({ format = "pt", ["k\195\169\n"] = "v" }, metadata)
        end
    end)

    it("takes tensors that are not aligned, odd bools, and fields it does not know", function()
        local path = write('{"x":{"more":[1,{"a":[]},"s",null,true,-1.5e+3],"dtype":"U8","shape":[1],'
            .. '"data_offsets":[0,1]},"y":'
            .. entry("F64", "[1]", 1, 9) .. ',"z":' .. entry("BOOL", "[3]", 9, 12) .. "}", "\7"
                .. "\0\0\0\0\0\0\240\63" .. "\0\1\255")
        for _, mmap in ipairs { false, true } do
            local t = pg.safetensors.load(path, { mmap = mmap })
            assert.same({ 7 }, t.x:totable())
            assert.same({ 1 }, t.y:totable())
            assert.same({ false, true, true }, t.z:totable())
        end
    end)

    it("takes an empty file of nothing", function()
        assert.is_nil(next((pg.safetensors.load(write("{}")))))
        assert.is_nil(next((pg.safetensors.load(write('{"__metadata__":{}}')))))
    end)

    it("mapped: a change stays in memory, and the tensors outlive the file's name", function()
        local path = folder .. "/mapped.safetensors"
        pg.safetensors.save(path, { x = pg.arange(1000):to(pg.float32) })
        local before = pg.memory_allocated()
        local x = pg.safetensors.load(path, { mmap = true }).x
        assert.equal(before, pg.memory_allocated())
        x:fill_(1)
        assert.equal(999, pg.safetensors.load(path).x[999]:item())
        os.remove(path)
        collectgarbage("collect")
        local y = x[{ { 500, 510 } }]
        x:free()
        collectgarbage("collect")
        assert.equal(10, y:sum():item())
    end)

    it("names dtypes that there are none of here, when they are asked for", function()
        refused("tensor 'x' has dtype U16, which is not supported", '{"x":' .. entry("U16", "[1]", 0, 2) .. "}", "ab")
    end)
end)

describe("a file that cannot be believed", function()
    local one = entry("F32", "[1]", 0, 4)

    it("is too short, or its header is", function()
        for n = 0, 7 do
            local path = folder .. "/short"
            shell.write(path, ("\0"):rep(n))
            local ok, message = pcall(pg.safetensors.load, path)
            assert.is_false(ok)
            assert.matches("has " .. n .. " bytes", message, 1, true)
        end
        refused("but the file has only", "{}", "", 3)
        refused("but the file has only", "{}", "", 99999999)
        refused("more than 100000000", "{}", "", 100000001)
        refused("more than 100000000", "{}", "", 2 ^ 53)
        shell.write(folder .. "/short", ("\255"):rep(8) .. "{}")
        local ok, message = pcall(pg.safetensors.load, folder .. "/short")
        assert.is_false(ok)
        assert.matches("18446744073709551615, more than", message, 1, true)
        refused("does not start with '{'", "")
        refused("does not start with '{'", " {}")
        refused("does not start with '{'", "[]")
    end)

    it("holds bad JSON", function()
        for _, text in ipairs {
            '{', '{"x"', '{"x":', '{"x":}', '{"x":1}', '{"x":[]}', '{x:{}}', '{"x":' .. one, '{"x":' .. one .. ',}',
            '{"x":' .. one .. '}}', '{"x":' .. one .. '}x', '{,}', '{"x":' .. one .. ' "y":' .. one .. '}', "{'x':"
            .. one .. "}",
            '{"x\n":' .. one .. '}', '{"\\x":' .. one .. '}', '{"\\u12":' .. one .. '}', '{"\\ud800":' .. one .. '}',
            '{"\\udc00":' .. one .. '}', '{"\\ud800\\u0041":' .. one .. '}', '{"a\\u0000b":' .. one .. '}', '{"x":'
            .. one .. '}\0',
            '{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4],}}',
            '{"x":{"dtype":"F32","shape":[1,],"data_offsets":[0,4]}}',
            '{"x":{"dtype":"F32","shape":[01],"data_offsets":[0,4]}}',
            '{"x":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}}',
            '{"x":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}',
            '{"x":{"dtype":"F32","shape":["1"],"data_offsets":[0,4]}}',
            '{"x":{"dtype":"F32","shape":1,"data_offsets":[0,4]}}',
            '{"x":{"dtype":1,"shape":[1],"data_offsets":[0,4]}}',
            '{"x":{"dtype":"F32","shape":[1],"data_offsets":[0]}}',
            '{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4,4]}}',
            '{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,9223372036854775808]}}',
            '{"x":{"dtype":"F32","shape":[1e0],"data_offsets":[0,4]}}',
            '{"x":{"dtype":"F32" "shape":[1],"data_offsets":[0,4]}}',
            '{"x":{"a":[1,],"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
            '{"x":{"a":{"b"},"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
            '{"x":{"a":tru,"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
            '{"x":{"a":' .. ("["):rep(5000) .. ("]"):rep(5000) .. ',"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
            '{"__metadata__":{"a":1}}', '{"__metadata__":[]}', '{"__metadata__":{"a":"b",}}', '{"__metadata__":{"a"}}',
            '{"__metadata__":null}',
        } do
            refused("the header is not as it should be", text, "data")
        end
        refused("at byte 13", '{"x":?}')
        refused("not UTF-8", '{"\255":' .. one .. "}", "data")
        refused("not UTF-8", '{"\192\128":' .. one .. "}", "data")
        refused("not UTF-8", '{"\237\160\128":' .. one .. "}", "data")
        refused("not UTF-8", '{"\240\159\152":' .. one .. "}", "data")
    end)

    it("says things twice, or leaves them out", function()
        refused("the tensor 'x' is there twice", '{"x":' .. one .. ',"x":' .. entry("F32", "[1]", 4, 8) .. "}",
            "datadata")
        refused("the tensor 'x' is there twice", '{"x":' .. one .. ',"\\u0078":' .. one .. "}", "data")
        refused("more than one '__metadata__'", '{"__metadata__":{},"__metadata__":{}}')
        refused("the metadata's key 'a' is there twice", '{"__metadata__":{"a":"1","b":"","a":"1"}}')
        refused("two fields 'dtype'", '{"x":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}', "data")
        refused("no field 'shape'", '{"x":{"dtype":"F32","data_offsets":[0,4]}}', "data")
        refused("no field 'dtype'", '{"x":{}}')
        refused("unknown dtype 'f32'", '{"x":' .. entry("f32", "[1]", 0, 4) .. "}", "data")
        refused("more than 16 dimensions", '{"x":' .. entry("F32", "[" .. ("1,"):rep(16) .. "1]", 0, 4) .. "}", "data")
    end)

    it("lays its tensors out wrongly", function()
        local function two(a, b) return '{"x":' .. a .. ',"y":' .. b .. "}" end
        refused("do not overlap", two(one, one), "data")
        refused("leave no gap", two(one, entry("F32", "[1]", 5, 9)), "datadata1")
        refused("expected 0", '{"x":' .. entry("F32", "[1]", 4, 8) .. "}", "datadata")
        refused("8 bytes of data, but the tensors end at 4", '{"x":' .. one .. "}", "datadata")
        refused("1 bytes of data, but the tensors end at 0", "{}", "x")
        refused("not within the 3 bytes", '{"x":' .. one .. "}", "dat")
        refused("not within", '{"x":' .. entry("F32", "[1]", 4, 0) .. "}", "data")
        refused("not within", '{"x":' .. entry("U8", "[1]", "9223372036854775806", "9223372036854775807") .. "}",
            "data")
        refused("4 bytes of data, but F32 of shape [2] has 8", '{"x":' .. entry("F32", "[2]", 0, 4) .. "}", "data")
        refused("but F64 of shape [] has 8", '{"x":' .. entry("F64", "[]", 0, 4) .. "}", "data")
        refused("product overflows", '{"x":' .. entry("F32", "[4294967296,4294967296]", 0, 4) .. "}", "data")
        refused("product overflows", '{"x":' .. entry("F32", "[4611686018427387905]", 0, 4) .. "}", "data")
        refused("but U8 of shape [0] has 0", '{"x":' .. entry("U8", "[0]", 0, 4) .. "}", "data")
    end)

    it("ends early, wherever that is", function()
        local path = folder .. "/whole.safetensors"
        pg.safetensors.save(path, { a = pg.ones(3, 4), b = pg.int64 { 1, 2 } }, { k = "v" })
        local whole = shell.read(path)
        for n = 0, #whole - 1, 3 do
            shell.write(folder .. "/part", whole:sub(1, n))
            for _, mmap in ipairs { false, true } do
                assert.is_false((pcall(pg.safetensors.load, folder .. "/part", { mmap = mmap })), n)
            end
        end
    end)

    it("has any byte changed: an error or other values, never a crash", function()
        local path = folder .. "/whole.safetensors"
        pg.safetensors.save(path, { a = pg.ones(3), b = pg.int64 { 1, 2 } }, { k = "v" })
        local whole = shell.read(path)
        local state = 7
        for n = 1, #whole do
            state = (state * 1103515245 + 12345) % 2147483648
            shell.write(folder .. "/part", whole:sub(1, n - 1) .. string.char(math.floor(state / 65536) % 256)
                .. whole:sub(n + 1))
            pcall(pg.safetensors.load, folder .. "/part", { mmap = n % 2 == 0 })
        end
    end)

    it("is no file, or not there", function()
        local function fails(path, pattern)
            local ok, message = pcall(pg.safetensors.load, path)
            assert.is_false(ok)
            assert.is_truthy(message:find(pattern, 1, true), message)
        end
        fails(folder .. "/absent", "No such file")
        fails(folder, "is not a file")
        fails("/dev/zero", "is not a file")
        shell.must("mkfifo " .. shell.quote(folder .. "/pipe"))
        fails(folder .. "/pipe", "is not a file")
    end)
end)

describe("writing", function()
    local path
    before_each(function() path = folder .. "/saved.safetensors" end)

    it("and reading again gives every dtype, shape and stride", function()
        local values = { bool = { true, false }, float16 = { 0.5, -2 }, bfloat16 = { 0.5, -2 }, uint8 = { 0, 255 } }
        local tensors = {}
        for _, name in ipairs { "bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32",
            "float64" } do
            tensors[name] = pg[name](values[name] or { 3, -4 })
        end
        tensors["scalar"] = pg.tensor(2.5)
        tensors["empty"] = pg.zeros(0, 4)
        tensors["strided"] = pg.arange(6):view(2, 3):t()
        tensors["expanded"] = pg.tensor { 7 }:expand(3)
        tensors["requires"] = pg.ones(2, { requires_grad = true })
        tensors['na"m\\e\1\195\169'] = pg.ones(1)
        pg.safetensors.save(path, tensors, { ["k\t"] = "\240\159\152\128" })
        for _, mmap in ipairs { false, true } do
            local back, metadata = pg.safetensors.load(path, { mmap = mmap })
            local n = 0
            for name, t in pairs(tensors) do
                n = n + 1
                assert.equal(t.dtype, back[name].dtype, name)
                assert.same({ unpack(t.shape) }, { unpack(back[name].shape) }, name)
                assert.same(t:detach():totable(), back[name]:totable(), name)
                assert.is_false(back[name].requires_grad)
            end
            for _ in pairs(back) do n = n - 1 end
            assert.equal(0, n)
            assert.same({ ["k\t"] = "\240\159\152\128" }, metadata)
        end
    end)

    it("pads the header, and orders by alignment, then by name", function()
        pg.safetensors.save(path, { c = pg.uint8 { 1 }, b = pg.float64 { 1 }, a = pg.uint8 { 2 },
            d = pg.float64 { 2 } })
        local bytes = shell.read(path)
        local n = bytes:byte(1) + 256 * bytes:byte(2)
        assert.equal(0, n % 8)
        assert.equal(8 + n + 18, #bytes)
        assert.matches('^{"b":.*"d":.*"a":.*"c":.*} *$', bytes:sub(9, 8 + n))
    end)

    it("keeps NaN's bits", function()
        local x = pg.int32 { 0x7fc00001, -1 }:view(pg.float32)
        pg.safetensors.save(path, { x = x })
        assert.same({ 0x7fc00001, -1 }, pg.safetensors.load(path).x:view(pg.int32):totable())
    end)

    it("replaces a file whole, with its mode, and leaves no other behind", function()
        pg.safetensors.save(path, { x = pg.zeros(10) })
        shell.must("chmod 640 " .. shell.quote(path))
        pg.safetensors.save(path, { x = pg.ones(10) })
        assert.equal(10, pg.safetensors.load(path).x:sum():item())
        assert.equal("640", (shell.must("stat -c %a " .. shell.quote(path)):gsub("%s", "")))
        assert.equal("", (shell.must("ls " .. shell.quote(folder) .. " | grep saving || true"):gsub("%s", "")))
    end)

    it("that fails leaves what was there", function()
        pg.safetensors.save(path, { x = pg.zeros(10) })
        local before = shell.read(path)
        for _, case in ipairs {
            { { x = pg.zeros(2) }, { k = "\255" }, "not UTF-8" }, { { ["\255"] = pg.zeros(2) }, nil, "not UTF-8" },
            { { __metadata__ = pg.zeros(2) }, nil, "cannot be called '__metadata__'" },
            { { ["a\0b"] = pg.zeros(2) }, nil, "NUL" }, { { x = pg.zeros(2) }, { k = "a\0b" }, "NUL" },
        } do
            local ok, message = pcall(pg.safetensors.save, path, case[1], case[2])
            assert.is_false(ok)
            assert.is_truthy(message:find(case[3], 1, true), message)
            assert.equal(before, shell.read(path))
        end
        local freed = pg.zeros(2)
        freed:free()
        assert.is_false((pcall(pg.safetensors.save, path, { x = freed })))
        assert.equal(before, shell.read(path))
        local ok, message = pcall(pg.safetensors.save, folder .. "/no/such/folder/x", { x = pg.zeros(1) })
        assert.is_false(ok)
        assert.matches("No such file", message)
        ok, message = pcall(pg.safetensors.save, folder, { x = pg.zeros(1) })
        assert.is_false(ok)
        assert.matches("is no file", message, 1, true)
    end)

    it("on a full disk is an error, and what was there before stays", function()
        pg.safetensors.save(path, { x = pg.ones(10) })
        local before = shell.read(path)
        local script = folder .. "/full.lua"
        shell.write(script, [[
            package.path = "./lua/?.lua;./lua/?/init.lua;" .. package.path
            local pg = require "perigee"
            local ok, message = pcall(pg.safetensors.save, arg[1], {x = pg.ones(1000000)})
            print(ok, message)
            pg.safetensors.save(arg[1] .. "2", {x = pg.ones(2)})
            print(pg.safetensors.load(arg[1] .. "2").x:sum():item())
        ]])
        -- a limit on a file's size stands for the disk that fills up; by itself it would end the process with a signal
        local status, output = shell.run(("(ulimit -f 64; %s %s %s)"):format(shell.quote(shell.build .. "/perigee"),
            shell.quote(script), shell.quote(path)))
        assert.equal(0, status, output)
        assert.matches("^false\t.*cannot be saved.*File too large", output)
        assert.matches("\n2%.?0?\n?$", output)
        assert.equal(before, shell.read(path))
        assert.equal("", (shell.must("ls " .. shell.quote(folder) .. " | grep saving || true"):gsub("%s", "")))
    end)
end)
