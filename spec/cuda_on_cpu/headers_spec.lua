-- The emulator's headers against NVIDIA's, where a CUDA toolkit is installed: one program, written here from what our
-- headers declare, is compiled with either and must print the same sizes, values, types and results. And the
-- conversions against the CPU's kernels, everywhere.
local ffi = require "ffi"
local pg = require "perigee"
local shell = require "spec.build.shell"
local quote = shell.quote

local INCLUDE = "kernels/cuda_on_cpu/include"

local VECTORS = {}
for type in ("char uchar short ushort int uint longlong ulonglong float double"):gmatch("%S+") do
    -- CUDA 13 declares 4 wide 8-byte vectors deprecated, for ones whose names say their alignment.
    for n = 1, (type:find("longlong") or type == "double") and 3 or 4 do VECTORS[#VECTORS + 1] = type .. n end
end
local TYPES = "__half __half2 __half_raw __nv_bfloat16 __nv_bfloat162 __nv_bfloat16_raw dim3 cudaError_t "
    .. "cudaStream_t cudaEvent_t cudaMemcpyKind cublasLtMatrixLayoutOpaque_t cublasLtMatmulAlgo_t "
    .. "cublasLtMatmulDescOpaque_t "
    .. "cublasLtMatmulPreferenceOpaque_t cublasLtMatmulHeuristicResult_t cublasStatus_t cudaDataType_t "
    .. table.concat(VECTORS, " ")

-- Overloaded in C++: their type is asked for by name.
local OVERLOADED = {
    cudaMalloc = "cudaError_t (*)(void **, size_t)",
    cudaMallocHost = "cudaError_t (*)(void **, size_t)",
    cudaHostAlloc = "cudaError_t (*)(void **, size_t, unsigned)",
    cudaFuncSetAttribute = "cudaError_t (*)(const void *, cudaFuncAttribute, int)",
    cudaEventCreate = "cudaError_t (*)(cudaEvent_t *)",
    cudaEventCreateWithFlags = "cudaError_t (*)(cudaEvent_t *, unsigned)",
    cudaHostGetDevicePointer = "cudaError_t (*)(void **, void *, unsigned)",
    cudaStreamCreate = "cudaError_t (*)(cudaStream_t *)",
    cudaGraphInstantiate = "cudaError_t (*)(cudaGraphExec_t *, cudaGraph_t, unsigned long long)",
    cudaGetDeviceProperties = "cudaError_t (*)(cudaDeviceProp *, int)",
}

-- The names that a header of ours gives values, and the functions that it declares.
local function declared(path, names, functions)
    local text = shell.read(INCLUDE .. "/" .. path):gsub("/%*.-%*/", "")
    for name in text:gmatch("([%w_]+) = %-?[%dx]+") do
        if name:find("^[cC][uU]") then names[#names + 1] = name end
    end
    for name in text:gmatch("\n[%w_ ]-[ %*](cu%w+)%(") do functions[#functions + 1] = name end
end

local CONVERSIONS = [[
static unsigned bits_of(float x) { unsigned u; memcpy(&u, &x, 4); return u; }
static void put(FILE *file, const void *p, size_t n) { if (fwrite(p, 1, n, file) != n) abort(); }
static void conversions(FILE *file) {
    for (unsigned i = 0; i < 65536; i++) {
        __half_raw raw; raw.x = (unsigned short)i;
        unsigned u = bits_of(__half2float(__half(raw)));
        put(file, &u, 4);
    }
    for (unsigned i = 0; i < 65536; i++) {
        __nv_bfloat16_raw raw; raw.x = (unsigned short)i;
        unsigned u = bits_of(__bfloat162float(__nv_bfloat16(raw)));
        put(file, &u, 4);
    }
    static const unsigned low[] = {0, 1, 0x0fff, 0x1000, 0x1001, 0x2fff, 0x3000, 0x7fff, 0x8000, 0x8001, 0xcfff, 0xd000,
                                   0xffff};
    for (unsigned high = 0; high < 65536; high++) {
        for (unsigned l : low) {
            unsigned u = high << 16 | l;
            float x; memcpy(&x, &u, 4);
            __half_raw h = __float2half_rn(x);
            __nv_bfloat16_raw b = __float2bfloat16_rn(x);
            put(file, &u, 4); put(file, &h.x, 2); put(file, &b.x, 2);
        }
    }
}
]]

local function program()
    local names, functions = {}, {}
    declared("on_cpu/runtime_api.h", names, functions)
    declared("cublasLt.h", names, functions)
    assert(#names > 80 and #functions > 50, #names .. " names, " .. #functions .. " functions")
    local lines = { [[
#include <cuda_runtime.h>
#include <cuda_fp16.h>
#include <cuda_bf16.h>
#include <cublasLt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <typeinfo>
]], CONVERSIONS, [[
int main(int, char **words) {
    FILE *file = fopen(words[1], "wb");
    conversions(file);
    fclose(file);]] }
    for type in TYPES:gmatch("%S+") do
        lines[#lines + 1] = ('    printf("%s: %%zu bytes, aligned to %%zu\\n", sizeof(%s), alignof(%s));')
            :format(type, type, type)
    end
    for _, name in ipairs(names) do
        lines[#lines + 1] = ('    printf("%s: %%lld\\n", (long long)%s);'):format(name, name)
    end
    for _, name in ipairs(functions) do
        local type = OVERLOADED[name] and ("static_cast<%s>(%s)"):format(OVERLOADED[name], name) or "&" .. name
        lines[#lines + 1] = ('    printf("%s: %%s\\n", typeid(%s).name());'):format(name, type)
    end
    lines[#lines + 1] = "}\n"
    return table.concat(lines, "\n")
end

local function toolkit()
    local nvcc = select(2, shell.run("command -v nvcc || command -v /usr/local/cuda/bin/nvcc")):match("^(%S+)")
    if not nvcc then return nil end
    local include = shell.must("readlink -f " .. quote(nvcc)):gsub("%s+$", ""):gsub("/bin/nvcc$", "/include")
    local status = shell.run("test -e " .. quote(include .. "/cublasLt.h"))
    return status == 0 and include or nil
end

describe("the emulator's headers", function()
    local folder

    -- Prints, and writes the conversions to NAME.bin. The functions are named, never called.
    local function run(name, include)
        local source, made = folder .. "/agree.cpp", folder .. "/" .. name
        shell.write(source, program())
        shell.must(("env -u LD_PRELOAD g++ -std=c++17 -O1 -Wno-deprecated-declarations -I%s -c %s -o %s.o")
            :format(quote(include), quote(source), quote(made)))
        shell.must(("env -u LD_PRELOAD g++ %s.o -Wl,--unresolved-symbols=ignore-all -o %s")
            :format(quote(made), quote(made)))
        return shell.must(("env -u LD_PRELOAD %s %s.bin"):format(quote(made), quote(made)))
    end

    lazy_setup(function() folder = shell.temporary_folder() end)
    lazy_teardown(function() shell.run("rm -rf " .. quote(folder)) end)

    it("agree with NVIDIA's in sizes, alignments, values, types and conversions", function()
        local include = toolkit()
        if not include then
            return pending("no CUDA toolkit with cublasLt.h on this machine")
        end
        local theirs = run("theirs", include)
        assert.is_true(#theirs > 5000)
        assert.equal(theirs, run("ours", INCLUDE))
        assert.equal(0, (shell.run(("cmp %s %s"):format(quote(folder .. "/ours.bin"), quote(folder .. "/theirs.bin")))))
    end)

    it("convert as the CPU's kernels do", function()
        run("ours", INCLUDE)
        local data = shell.read(folder .. "/ours.bin")
        local words = ffi.cast("const uint32_t *", data)
        local value = ffi.new("union { uint32_t bits; float number; }")
        local function number(bits)
            value.bits = bits
            return value.number
        end
        -- Bits of the CPU's results; a NaN may have any.
        local function same(a, b)
            return a == b or (number(a) ~= number(a) and number(b) ~= number(b))
        end

        local patterns = pg.arange(65536, { dtype = pg.int32, device = "cpu" }):to(pg.int16)
        for at, dtype in ipairs { pg.float16, pg.bfloat16 } do
            local wide = patterns:view(dtype):to(pg.float32)
            local bits = ffi.cast("const uint32_t *", wide:data_ptr())
            local wrong = 0
            for i = 0, 65535 do
                if not same(words[(at - 1) * 65536 + i], bits[i]) then wrong = wrong + 1 end
            end
            assert.equal(0, wrong)
        end

        local n = (#data / 4 - 2 * 65536) / 2
        assert.equal(65536 * 13, n)
        local cases = ffi.cast("const struct { uint32_t from; uint16_t half, bfloat; } *", words + 2 * 65536)
        local floats = pg.zeros(n, { device = "cpu" })
        local into = ffi.cast("uint32_t *", floats:data_ptr())
        for i = 0, n - 1 do into[i] = cases[i].from end
        local halves, bfloats = floats:to(pg.float16), floats:to(pg.bfloat16)
        local half = ffi.cast("const uint16_t *", halves:data_ptr())
        local bfloat = ffi.cast("const uint16_t *", bfloats:data_ptr())
        local wrong_halves, wrong_bfloats = 0, 0
        for i = 0, n - 1 do
            local nan = number(cases[i].from) ~= number(cases[i].from)
            if cases[i].half ~= half[i] and not (nan and bit.band(half[i], 0x7fff) > 0x7c00) then
                wrong_halves = wrong_halves + 1
            end
            if cases[i].bfloat ~= bfloat[i] and not (nan and bit.band(bfloat[i], 0x7fff) > 0x7f80) then
                wrong_bfloats = wrong_bfloats + 1
            end
            if nan then
                assert.equal(0x7fff, cases[i].half)
                assert.equal(0x7fff, cases[i].bfloat)
            end
        end
        assert.same({ 0, 0 }, { wrong_halves, wrong_bfloats })
    end)
end)
