from libs.rpc._generated.trefoil.party.v1 import party_pb2 as pb
import grpc, pytest
async def test_smoke(rig):
    await rig.serve()
    stub = await rig.stub()
    async def show(r, c): print(dict(c.auth_context()))
    rig.party.on_call = show
    await stub.OpenRound(pb.OpenRoundRequest())
    print(rig.party.callers)
    from tests.integration.rpc.conftest import HOSPITAL, CLIENT
    from libs.rpc.tokens import Role
    w = await rig.stub(HOSPITAL, token=rig.token(Role.WORKER))
    print(await w.PutShares(iter([pb.PutSharesRequest(chunk=b"x")]*2)))
    print([m async for m in w.GetShares(pb.GetSharesRequest())])
    c = await rig.stub(CLIENT, token=rig.token(Role.CLINICIAN))
    async def it():
        yield pb.PredictRequest(masked_input_chunk=b"abc")
    print([m async for m in c.Predict(it())])
    call = c.Predict()
    await call.write(pb.PredictRequest(masked_input_chunk=b"abc"))
    await call.done_writing()
    print(await call.read(), await call.read())
